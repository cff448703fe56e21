/* Bilinear gather of deformable taps and its gradient, channels last, computed in float32.
 * The columns may be bfloat16 (`narrow`), half the memory traffic beside bfloat16 products.
 *
 * For output position p of an image, offset group g and tap k, with dy, dx, m read from the
 * offset and mask tensors, the tap stands at
 *     y = oy * stride - pad + ky * dilation + dy,    x likewise,
 * and columns[p][k][g*cg + c] = m * bilinear(image[:, :, g*cg + c], y, x), where a corner outside
 * the image counts as zero (ONNX DeformConv). A tap whose coordinate is not finite samples zero.
 *
 * One call treats the output rows [row0, row1) of one image in the forward pass, and a whole image
 * in the backward pass, so that images can be given to threads without atomics.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    int height, width, channels;      /* image */
    int out_width, taps_y, taps_x;    /* output row length, kernel size */
    int stride_y, stride_x, pad_y, pad_x, dil_y, dil_x;
    int groups;                       /* offset groups; channels is a multiple of it */
    int narrow;                       /* columns and their gradient are bfloat16 */
} Geometry;

typedef struct {
    int inside[4];                    /* corner in the image? */
    long at[4];                       /* its offset in the image, in floats */
    float weight[4];
    float fy, fx;
    int any;
} Tap;

static inline uint16_t to_bfloat16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16); /* to the nearest even */
}

static inline float from_bfloat16(uint16_t value) {
    const uint32_t bits = (uint32_t)value << 16;
    float wide;
    memcpy(&wide, &bits, sizeof wide);
    return wide;
}

static Tap locate(const Geometry *g, float y, float x) {
    Tap t;
    memset(&t, 0, sizeof t);
    if (!(y > -1.0f && x > -1.0f && y < (float)g->height && x < (float)g->width)) return t;
    const int y0 = (int)floorf(y), x0 = (int)floorf(x);
    t.fy = y - (float)y0;
    t.fx = x - (float)x0;
    const float wy[2] = {1.0f - t.fy, t.fy}, wx[2] = {1.0f - t.fx, t.fx};
    for (int j = 0; j < 4; j++) {
        const int yy = y0 + (j >> 1), xx = x0 + (j & 1);
        t.inside[j] = yy >= 0 && yy < g->height && xx >= 0 && xx < g->width;
        t.at[j] = t.inside[j] ? ((long)yy * g->width + xx) * g->channels : 0;
        t.weight[j] = t.inside[j] ? wy[j >> 1] * wx[j & 1] : 0.0f;
    }
    t.any = 1;
    return t;
}

void sample_forward(const Geometry *g, int row0, int row1, const float *restrict image,
                    const float *restrict offset, const float *restrict mask,
                    void *restrict columns) {
    const int taps = g->taps_y * g->taps_x, cg = g->channels / g->groups;
    for (int oy = row0; oy < row1; oy++)
        for (int ox = 0; ox < g->out_width; ox++) {
            const long p = (long)oy * g->out_width + ox;
            for (int og = 0; og < g->groups; og++)
                for (int k = 0; k < taps; k++) {
                    const long at = (p * g->groups + og) * taps + k;
                    const float y = oy * g->stride_y - g->pad_y + (k / g->taps_x) * g->dil_y + offset[2 * at];
                    const float x = ox * g->stride_x - g->pad_x + (k % g->taps_x) * g->dil_x + offset[2 * at + 1];
                    const Tap t = locate(g, y, x);
                    const size_t first = (p * taps + k) * g->channels + og * cg;
                    float *restrict out = (float *)columns + first;
                    uint16_t *restrict narrow = (uint16_t *)columns + first;
                    if (!t.any) {
                        if (g->narrow) memset(narrow, 0, (size_t)cg * sizeof(uint16_t));
                        else memset(out, 0, (size_t)cg * sizeof(float));
                        continue;
                    }
                    const float m = mask[at];
                    const float a = t.weight[0] * m, b = t.weight[1] * m, c = t.weight[2] * m, d = t.weight[3] * m;
                    const float *restrict v = image + og * cg;
                    const float *restrict v0 = v + t.at[0], *restrict v1 = v + t.at[1];
                    const float *restrict v2 = v + t.at[2], *restrict v3 = v + t.at[3];
                    if (g->narrow)
                        for (int i = 0; i < cg; i++)
                            narrow[i] = to_bfloat16(a * v0[i] + b * v1[i] + c * v2[i] + d * v3[i]);
                    else
                        for (int i = 0; i < cg; i++)
                            out[i] = a * v0[i] + b * v1[i] + c * v2[i] + d * v3[i];
                }
        }
}

void sample_backward(const Geometry *g, int out_height, const float *restrict image,
                     const float *restrict offset, const float *restrict mask,
                     const void *restrict grad_columns, float *restrict grad_image,
                     float *restrict grad_offset, float *restrict grad_mask) {
    const int taps = g->taps_y * g->taps_x, cg = g->channels / g->groups;
    float wide[g->narrow ? cg : 1];
    for (int oy = 0; oy < out_height; oy++)
        for (int ox = 0; ox < g->out_width; ox++) {
            const long p = (long)oy * g->out_width + ox;
            for (int og = 0; og < g->groups; og++)
                for (int k = 0; k < taps; k++) {
                    const long at = (p * g->groups + og) * taps + k;
                    const float y = oy * g->stride_y - g->pad_y + (k / g->taps_x) * g->dil_y + offset[2 * at];
                    const float x = ox * g->stride_x - g->pad_x + (k % g->taps_x) * g->dil_x + offset[2 * at + 1];
                    const Tap t = locate(g, y, x);
                    if (!t.any) continue;
                    const float m = mask[at];
                    const size_t first = (p * taps + k) * g->channels + og * cg;
                    const float *restrict go = (const float *)grad_columns + first;
                    if (g->narrow) {
                        const uint16_t *restrict from = (const uint16_t *)grad_columns + first;
                        for (int i = 0; i < cg; i++) wide[i] = from_bfloat16(from[i]);
                        go = wide;
                    }
                    float dot[4] = {0, 0, 0, 0};
                    for (int j = 0; j < 4; j++) {
                        if (!t.inside[j]) continue;
                        const float *restrict v = image + og * cg + t.at[j];
                        float *restrict gi = grad_image + og * cg + t.at[j];
                        const float w = t.weight[j] * m;
                        float s = 0.0f;
                        for (int i = 0; i < cg; i++) {
                            s += go[i] * v[i];
                            gi[i] += w * go[i];
                        }
                        dot[j] = s;
                    }
                    grad_mask[at] = t.weight[0] * dot[0] + t.weight[1] * dot[1] + t.weight[2] * dot[2] + t.weight[3] * dot[3];
                    grad_offset[2 * at] = m * ((1.0f - t.fx) * (dot[2] - dot[0]) + t.fx * (dot[3] - dot[1]));
                    grad_offset[2 * at + 1] = m * ((1.0f - t.fy) * (dot[1] - dot[0]) + t.fy * (dot[3] - dot[2]));
                }
        }
}
