/* The innermost loops. Compiled once for each instruction set, with -DISA=its name and -DVECTOR_BYTES=the size of its vectors:
 * the compiler's own vector types become its registers. */
#include "kernels.h"

#ifdef __SSE__
#include <immintrin.h>
#endif

#define LANES (VECTOR_BYTES / 4)
#ifndef WIDTH
#define WIDTH 7
#endif
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define TEXT_(a) #a
#define TEXT(a) TEXT_(a)
#define EACH _Pragma("GCC unroll 16") for

typedef float Vec __attribute__((vector_size(VECTOR_BYTES), may_alias));
typedef float Loose __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias)); /* at any address */
static inline Vec spread(float value) { return value - (Vec){0}; }

/* The larger and the smaller of two. NaN in the second stays NaN, as in numpy. */
#if defined(__AVX512F__) && VECTOR_BYTES == 64
#define LARGER(A, B) (Vec) _mm512_max_ps((__m512)(A), (__m512)(B))
#define SMALLER(A, B) (Vec) _mm512_min_ps((__m512)(A), (__m512)(B))
#elif defined(__AVX__) && VECTOR_BYTES == 32
#define LARGER(A, B) (Vec) _mm256_max_ps((__m256)(A), (__m256)(B))
#define SMALLER(A, B) (Vec) _mm256_min_ps((__m256)(A), (__m256)(B))
#elif defined(__SSE__) && VECTOR_BYTES == 16
#define LARGER(A, B) (Vec) _mm_max_ps((__m128)(A), (__m128)(B))
#define SMALLER(A, B) (Vec) _mm_min_ps((__m128)(A), (__m128)(B))
#else /* GCC knows no choice between vectors in C */
typedef int32_t Bits __attribute__((vector_size(VECTOR_BYTES)));
static inline Vec chosen(Bits first, Vec a, Vec b) { return (Vec)((first & (Bits)a) | (~first & (Bits)b)); }
#define LARGER(A, B) chosen((A) > (B), A, B)
#define SMALLER(A, B) chosen((A) < (B), A, B)
#endif

/* The floats of a vector; where it is not whole, only some of them are there. */
static inline Vec load(const float *from, int whole, int count) {
    Vec x = {0};
    if (whole) return (Vec) * (const Loose *)from;
    for (int i = 0; i < count; i++) x[i] = from[i];
    return x;
}

static inline void store(float *to, Vec x, int whole, int count) {
    if (whole)
        *(Loose *)to = (Loose)x;
    else
        for (int i = 0; i < count; i++) to[i] = x[i];
}

/* What R rows times V vectors of positions have in common: where they are, and what is added. */
typedef struct {
    const Tile *tile;
    const Finish *finish;
    size_t row, position;
    const uint16_t *at;
    const float *values;
    size_t step; /* weights from an entry to the next: more than R where a panel has more rows than there are registers for */
    size_t entries;
    int whole; /* whether the last vector has all its floats */
} Part;

/* R and V are constants wherever this is called, so that sums are registers. */
static inline __attribute__((always_inline)) void product_of(const int R, const int V, const Part *part) {
    const Tile *tile = part->tile;
    const Finish *finish = part->finish;
    const size_t width = tile->width, stride = tile->stride, step = part->step, entries = part->entries;
    const uint16_t *at = part->at;
    const float *w = part->values, *inputs = tile->inputs + part->position;
    float *y = tile->outputs + part->row * stride + part->position;
    const int whole = part->whole, tail = tile->tail;
    Vec sum[4][MOST_VECTORS];
    EACH(int r = 0; r < R; r++) {
        Vec bias = spread(finish->bias ? finish->bias[part->row + r] : 0);
        EACH(int v = 0; v < V; v++)
            sum[r][v] = tile->begins ? bias : load(y + r * stride + v * LANES, v < V - 1 || whole, tail);
    }
    for (size_t n = 0; n < entries; n++, w += step) {
        const float *x = inputs + at[n] * width;
        Vec column[MOST_VECTORS];
        EACH(int v = 0; v < V; v++) column[v] = *(const Vec *)(x + v * LANES);
        EACH(int r = 0; r < R; r++) {
            Vec weight = spread(w[r]);
            EACH(int v = 0; v < V; v++) sum[r][v] += weight * column[v];
        }
    }
    if (tile->ends)
        EACH(int r = 0; r < R; r++) EACH(int v = 0; v < V; v++) {
            if (tile->residual)
                sum[r][v] += load(tile->residual + (y - tile->outputs) + r * stride + v * LANES, v < V - 1 || whole, tail);
            sum[r][v] = SMALLER(spread(finish->high), LARGER(spread(finish->low), sum[r][v]));
        }
    EACH(int r = 0; r < R; r++) EACH(int v = 0; v < V; v++)
        store(y + r * stride + v * LANES, sum[r][v], v < V - 1 || whole, tail);
}

#define PRODUCT(R, V) \
    static void product_##R##x##V(const Part *part) { product_of(R, V, part); }

/* Registers: R * V sums, V inputs and a weight. */
PRODUCT(1, 1) PRODUCT(1, 2) PRODUCT(1, 3) PRODUCT(1, 4) PRODUCT(1, 5) PRODUCT(1, 6) PRODUCT(1, 7) PRODUCT(1, 8)
PRODUCT(2, 1) PRODUCT(2, 2) PRODUCT(2, 3) PRODUCT(2, 4) PRODUCT(2, 5) PRODUCT(4, 1) PRODUCT(4, 2) PRODUCT(4, 3)
#if REGISTERS == 32
PRODUCT(2, 6) PRODUCT(2, 7) PRODUCT(2, 8) PRODUCT(4, 4) PRODUCT(4, 5) PRODUCT(4, 6)
#endif

typedef void (*Product)(const Part *);

static const Product ONE[] = {product_1x1, product_1x2, product_1x3, product_1x4,
                              product_1x5, product_1x6, product_1x7, product_1x8};
#if REGISTERS == 32
static const Product TWO[] = {product_2x1, product_2x2, product_2x3, product_2x4,
                              product_2x5, product_2x6, product_2x7, product_2x8};
static const Product FOUR[] = {product_4x1, product_4x2, product_4x3, product_4x4, product_4x5, product_4x6};
enum { WIDE_TWO = 8, WIDE_FOUR = 6 };
#else
static const Product TWO[] = {product_2x1, product_2x2, product_2x3, product_2x4, product_2x5};
static const Product FOUR[] = {product_4x1, product_4x2, product_4x3};
enum { WIDE_TWO = 5, WIDE_FOUR = 3 };
#endif

static void product(const Tile *tile, const Finish *finish, Panel panel, const uint16_t *at, const float *values, size_t entries) {
    const Product *of = panel.rows == 1 ? ONE : panel.rows == 2 ? TWO : FOUR;
    int widest = panel.rows == 1 ? MOST_VECTORS : panel.rows == 2 ? WIDE_TWO : WIDE_FOUR;
    size_t together = panel.rows < 4 ? panel.rows : 4;
    int parts = (tile->vectors + widest - 1) / widest;
    for (size_t r = 0; r < panel.rows; r += together)
        for (int done = 0, v = 0; done < parts; done++) {
            int vectors = (tile->vectors - v) / (parts - done); /* parts of about the same width */
            int whole = v + vectors < tile->vectors || tile->tail == LANES;
            Part part = {tile, finish, panel.row + r, (size_t)v * LANES, at, values + r, panel.rows, entries, whole};
            of[vectors - 1](&part);
            v += vectors;
        }
}

static void gather(const Source *source, const uint32_t *columns, size_t count, size_t position, int vectors, int tail, float *to) {
    for (size_t c = 0; c < count; c++) {
        const float *from = source->inputs + source->offsets[columns[c]] + position;
        for (int v = 0; v < vectors; v += LINE / VECTOR_BYTES) /* of the next tile: each column is elsewhere, nothing guesses it */
            __builtin_prefetch(from + (vectors + v) * LANES, 0, 2);
        for (int v = 0; v < vectors; v++, from += LANES, to += LANES)
            *(Vec *)to = load(from, v < vectors - 1 || tail == LANES, tail);
    }
}

/* R rows at one position: the rows are the vector; four sums, since each waits for the one before. */
#define DOT(R)                                                                                                                 \
    static void dot_##R(const float *inputs, float *outputs, const uint16_t *at, const float *values, size_t entries) {        \
        typedef float Rows __attribute__((vector_size(4 * R), aligned(4), may_alias));                                         \
        Rows sum[4] = {*(const Rows *)outputs, {0}, {0}, {0}};                                                                 \
        size_t n = 0;                                                                                                          \
        for (; n + 4 <= entries; n += 4)                                                                                       \
            EACH(int i = 0; i < 4; i++) sum[i] += *(const Rows *)(values + (n + i) * R) * inputs[at[n + i]];                   \
        for (; n < entries; n++) sum[0] += *(const Rows *)(values + n * R) * inputs[at[n]];                                    \
        *(Rows *)outputs = (sum[0] + sum[1]) + (sum[2] + sum[3]);                                                              \
    }
DOT(1) DOT(2) DOT(4) DOT(8) DOT(16)

static void dot(const float *inputs, float *outputs, uint32_t rows, const uint16_t *at, const float *values, size_t entries) {
    switch (rows) {
    case 1: dot_1(inputs, outputs, at, values, entries); break;
    case 2: dot_2(inputs, outputs, at, values, entries); break;
    case 4: dot_4(inputs, outputs, at, values, entries); break;
    case 8: dot_8(inputs, outputs, at, values, entries); break;
    default: dot_16(inputs, outputs, at, values, entries);
    }
}

const Loops JOIN(loops_, ISA) = {TEXT(ISA), LANES, WIDTH, gather, product, dot};
