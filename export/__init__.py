"""The export room: trained weights in, checked ONNX files with their cards out."""
