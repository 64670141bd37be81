/* Leaky integrate-and-fire neurons over time: one pass over memory forward, one back.
 *
 * x, y, grad are (batch, frames, channels), row-major; counts[b] is the number of valid frames of utterance b. A thread
 * takes the whole time of one utterance and CHUNK channels, whose membranes stay in registers and whose membranes over
 * time, computed again in the backward pass, stay in its cache. The file includes itself once for float and once for double.
 */
#ifndef REAL

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#define CHUNK 64
#define GRAIN 32768 /* elements below which a second thread costs more than it brings */
#define AHEAD 8 /* frames */
#define PI 3.14159265358979323846

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)

/* Memory of this thread, kept from call to call. */
static void *scratch(size_t bytes)
{
    static _Thread_local void *memory;
    static _Thread_local size_t size;
    if (size < bytes) {
        free(memory);
        memory = malloc(bytes);
        size = bytes;
    }
    return memory;
}

#define REAL float
#define NAME(f) JOIN(f, float)
#define EXP expf
#define ABS fabsf
#include "lif.c"
#undef REAL
#undef NAME
#undef EXP
#undef ABS
#define REAL double
#define NAME(f) JOIN(f, double)
#define EXP exp
#define ABS fabs
#include "lif.c"

#else

/* v = n membranes of start from ``place`` on, 0 where start is NULL. */
static inline void NAME(begin)(const REAL *start, int64_t place, int64_t n, REAL *v)
{
    if (start)
        memcpy(v, start + place, n * sizeof(REAL));
    else
        memset(v, 0, n * sizeof(REAL));
}

/* Membranes h = decay v + (x scale + shift) of one frame and n channels; v becomes what is left after the reset. */
static inline void NAME(charge)(const REAL *restrict x, const REAL *restrict scale, const REAL *restrict shift,
                                const REAL *restrict decay, REAL threshold, int soft, int64_t n, REAL *restrict v, REAL *restrict h)
{
    if (scale)
        for (int64_t c = 0; c < n; c++)
            h[c] = decay[c] * v[c] + (x[c] * scale[c] + shift[c]);
    else
        for (int64_t c = 0; c < n; c++)
            h[c] = decay[c] * v[c] + x[c];
    if (soft)
        for (int64_t c = 0; c < n; c++)
            v[c] = h[c] >= threshold ? h[c] - threshold : h[c];
    else
        for (int64_t c = 0; c < n; c++)
            v[c] = h[c] >= threshold ? 0 : h[c];
}

/* start (batch, channels) are the membranes before the first frame, 0 where NULL; gain (batch, channels) is what a spike is worth in y,
 * 1 where NULL; code may be NULL. */
void NAME(lif)(const REAL *x, const REAL *scale, const REAL *shift, const REAL *decay, const REAL *start, const REAL *gain,
               const int64_t *counts, int64_t batch, int64_t frames, int64_t channels, double threshold_, int64_t soft, REAL *y,
               uint8_t *code, REAL *end)
{
    const REAL threshold = threshold_;
    const int64_t chunks = (channels + CHUNK - 1) / CHUNK;
#pragma omp parallel for schedule(static) if (batch * frames * channels >= GRAIN)
    for (int64_t job = 0; job < batch * chunks; job++) {
        const int64_t b = job / chunks, first = job % chunks * CHUNK;
        const int64_t n = channels - first < CHUNK ? channels - first : CHUNK;
        REAL v[CHUNK], h[CHUNK], one[CHUNK];
        for (int64_t c = 0; c < n; c++)
            one[c] = gain ? gain[b * channels + first + c] : 1;
        NAME(begin)(start, b * channels + first, n, v);
        for (int64_t t = 0; t < frames; t++) {
            const int64_t at = (b * frames + t) * channels + first;
            if (t >= counts[b]) {
                memset(y + at, 0, n * sizeof(REAL));
                if (code)
                    memset(code + at, 0, n);
                continue;
            }
            NAME(charge)(x + at, scale ? scale + first : 0, shift ? shift + first : 0, decay + first, threshold, soft, n, v, h);
            REAL *restrict yt = y + at;
            for (int64_t c = 0; c < n; c++)
                yt[c] = h[c] >= threshold ? one[c] : 0;
            if (code) {
                uint8_t *restrict ct = code + at;
                for (int64_t c = 0; c < n; c++)
                    ct[c] = h[c] >= threshold;
            }
        }
        memcpy(end + b * channels + first, v, n * sizeof(REAL));
    }
}

/* alpha s (1 - s), s the logistic function of alpha x. */
static inline REAL NAME(sigmoid)(REAL x, REAL alpha)
{
    REAL s = 1 / (1 + EXP(-alpha * x));
    return alpha * s * (1 - s);
}

/* One frame back, for K the surrogate derivative at a membrane H: g comes in as the derivative by the membrane after the reset
 * and goes out as that by the one before it. The conditions do not change inside the loop, which is copied for each of them. */
#define DISCHARGE(K)                                                                                                                       \
    for (int64_t c = 0; c < n; c++) {                                                                                                      \
        const REAL H = h[c], D = H - threshold, k = K;                                                                                     \
        REAL carried = soft ? g[c] : H >= threshold ? 0 : g[c];                                                                            \
        if (!detach)                                                                                                                       \
            carried -= g[c] * (soft ? threshold : H) * k;                                                                                  \
        g[c] = grad[c] * one[c] * k + carried;                                                                                             \
    }                                                                                                                                      \
    break;

/* In the order of surrogate.py. */
static inline void NAME(discharge)(int64_t surrogate, const REAL *restrict grad, const REAL *restrict one, const REAL *restrict h,
                                   REAL threshold, REAL alpha, int soft, int detach, int64_t n, REAL *restrict g)
{
    const REAL slope = PI / 2 * alpha, half = alpha / 2, width = 1 / (2 * alpha);
    switch (surrogate) {
    case 0:
        DISCHARGE(half / (1 + (slope * D) * (slope * D)))
    case 1:
        DISCHARGE(NAME(sigmoid)(D, alpha))
    case 2:
        DISCHARGE(1 / ((1 + alpha * ABS(D)) * (1 + alpha * ABS(D))))
    case 3:
        DISCHARGE((1 - alpha * ABS(D) > 0 ? alpha * (1 - alpha * ABS(D)) : 0))
    case 4:
        DISCHARGE((ABS(D) <= width ? alpha : 0))
    default:
        DISCHARGE(1)
    }
}

/* Memory that the next but few frames will ask for: rows lie too far apart for the processor to guess it. */
static inline void NAME(fetch)(const REAL *row, int64_t n, int write)
{
    for (int64_t c = 0; c < n; c += 64 / sizeof(REAL))
        if (write)
            __builtin_prefetch(row + c, 1);
        else
            __builtin_prefetch(row + c, 0);
}

/* dx = factor * derivative by the charge (factor 1 where NULL). sums (3, channels), where wanted: over all valid frames, of the
 * derivative, of derivative * x (bit 0 of wanted) and of derivative * previous membrane (bit 1); parts (3, batch, channels) are those of
 * each utterance. grad_start may be NULL. */
void NAME(lif_backward)(const REAL *grad, const REAL *grad_end, const REAL *x, const REAL *scale, const REAL *shift, const REAL *decay,
                        const REAL *start, const REAL *gain, const REAL *factor, const int64_t *counts, int64_t batch, int64_t frames,
                        int64_t channels, double threshold_, int64_t soft, int64_t detach, int64_t surrogate, double alpha, int64_t wanted,
                        REAL *dx, REAL *grad_start, REAL *parts, double *sums)
{
    const REAL threshold = threshold_;
    const int64_t chunks = (channels + CHUNK - 1) / CHUNK;
#pragma omp parallel for schedule(static) if (batch * frames * channels >= GRAIN)
    for (int64_t job = 0; job < batch * chunks; job++) {
        const int64_t b = job / chunks, first = job % chunks * CHUNK;
        const int64_t n = channels - first < CHUNK ? channels - first : CHUNK;
        const int64_t place = b * channels + first, base = b * frames * channels + first;
        const int64_t last = (counts[b] < frames ? counts[b] : frames) - 1;
        REAL v[CHUNK], v0[CHUNK], g[CHUNK], one[CHUNK], total[CHUNK] = {0}, by_x[CHUNK] = {0}, by_v[CHUNK] = {0};
        REAL *membranes = scratch(frames * CHUNK * sizeof(REAL));
        for (int64_t c = 0; c < n; c++)
            one[c] = gain ? gain[place + c] : 1;
        NAME(begin)(start, place, n, v0);
        memcpy(v, v0, n * sizeof(REAL));
        for (int64_t t = 0; t <= last; t++) {
            if (t + AHEAD <= last)
                NAME(fetch)(x + base + (t + AHEAD) * channels, n, 0);
            NAME(charge)(x + base + t * channels, scale ? scale + first : 0, shift ? shift + first : 0, decay + first, threshold, soft, n,
                         v, membranes + t * CHUNK);
        }
        for (int64_t t = last + 1; t < frames; t++)
            memset(dx + base + t * channels, 0, n * sizeof(REAL));
        if (grad_end)
            memcpy(g, grad_end + place, n * sizeof(REAL));
        else
            memset(g, 0, sizeof g);
        for (int64_t t = last; t >= 0; t--) {
            const REAL *restrict h = membranes + t * CHUNK, *restrict xt = x + base + t * channels;
            REAL *restrict dxt = dx + base + t * channels;
            if (t >= AHEAD) {
                NAME(fetch)(grad + base + (t - AHEAD) * channels, n, 0);
                NAME(fetch)(dxt - AHEAD * channels, n, 1);
            }
            NAME(discharge)(surrogate, grad + base + t * channels, one, h, threshold, alpha, soft, detach, n, g);
            if (wanted & 1)
                for (int64_t c = 0; c < n; c++) {
                    total[c] += g[c];
                    by_x[c] += g[c] * xt[c];
                }
            if (wanted & 2) {
                const REAL *restrict before = t ? h - CHUNK : v0;
                for (int64_t c = 0; c < n; c++) {
                    REAL left = t && before[c] >= threshold ? (soft ? before[c] - threshold : 0) : before[c];
                    by_v[c] += g[c] * left;
                }
            }
            if (factor)
                for (int64_t c = 0; c < n; c++) {
                    dxt[c] = g[c] * factor[first + c];
                    g[c] *= decay[first + c];
                }
            else
                for (int64_t c = 0; c < n; c++) {
                    dxt[c] = g[c];
                    g[c] *= decay[first + c];
                }
        }
        if (grad_start)
            memcpy(grad_start + place, g, n * sizeof(REAL));
        if (wanted) {
            memcpy(parts + place, total, n * sizeof(REAL));
            memcpy(parts + batch * channels + place, by_x, n * sizeof(REAL));
            memcpy(parts + 2 * batch * channels + place, by_v, n * sizeof(REAL));
        }
    }
    if (!wanted)
        return;
    memset(sums, 0, 3 * channels * sizeof(double));
    for (int64_t row = 0; row < 3 * batch; row++)
        for (int64_t c = 0; c < channels; c++)
            sums[row / batch * channels + c] += parts[row * channels + c];
}

#undef DISCHARGE
#endif
