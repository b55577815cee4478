/* The innermost loops. Compiled once for each instruction set, with -DISA=its name and -DVECTOR_BYTES=the size of its vectors:
 * the compiler's own vector types become its registers. */
#include "kernels.h"

#ifdef __SSE__
#include <immintrin.h>
#endif

#define LANES (VECTOR_BYTES / 4)
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
    const Packed *packed;
    size_t block, from, to; /* panels [from, to) of a block; they have the same height */
    size_t row;             /* rows of a panel before these: more than 0 where it has more rows than there are registers for */
    size_t position;        /* of the first vector in the tile */
    size_t last, gathered;  /* of the last vector from the first, in outputs and in inputs */
} Part;

/* Weights, and entries whose inputs, are asked for before they are needed: each entry reads elsewhere, nothing guesses that. */
enum { ENTRIES_AHEAD = 8, WEIGHTS_AHEAD = 256, DOT_WEIGHTS_AHEAD = 512 };

/* R and V are constants wherever this is called, so that sums are registers. */
static inline __attribute__((always_inline)) void product_of(const int R, const int V, const Part *part) {
    const Tile *tile = part->tile;
    const Finish *finish = part->finish;
    const Packed *packed = part->packed;
    const size_t *offsets = tile->offsets;
    const size_t last = part->last, gathered = part->gathered, stride = tile->stride, step = packed->panel[part->from].rows;
    const uint32_t *start = packed->start + part->block * packed->panels, *value = packed->value + part->block * packed->panels;
    const uint16_t *final = packed->at + start[packed->panels] - 1;
    const float *inputs = tile->inputs + part->position;
    const int tail = tile->tail, whole = V > 1 || tail == LANES;
    for (size_t p = part->from; p < part->to; p++) {
        const size_t row = packed->panel[p].row + part->row;
        const uint16_t *at = packed->at + start[p], *end = packed->at + start[p + 1];
        if (at == end && !tile->begins && !tile->ends) continue;
        const float *w = packed->values + value[p] + part->row;
        float *y = tile->outputs + row * stride + part->position;
        Vec sum[4][PART_VECTORS];
        EACH(int r = 0; r < R; r++) {
            Vec bias = spread(finish->bias ? finish->bias[row + r] : 0);
            EACH(int v = 0; v < V; v++)
                sum[r][v] = tile->begins ? bias : load(y + r * stride + (v < V - 1 ? (size_t)v * LANES : last), whole, tail);
        }
        for (; at < end; at++, w += step) {
            const float *x = inputs + offsets[*at];
            if (R >= IN_PLACE_ROWS) {
                const float *next = inputs + offsets[at + ENTRIES_AHEAD < final ? at[ENTRIES_AHEAD] : *final];
                EACH(int v = 0; v < V; v++) __builtin_prefetch(next + v * LANES, 0, 3);
                __builtin_prefetch(w + WEIGHTS_AHEAD, 0, 3);
            }
            Vec column[PART_VECTORS];
            EACH(int v = 0; v < V; v++) column[v] = (Vec) * (const Loose *)(x + (v < V - 1 ? (size_t)v * LANES : gathered));
            EACH(int r = 0; r < R; r++) {
                Vec weight = spread(w[r]);
                EACH(int v = 0; v < V; v++) sum[r][v] += weight * column[v];
            }
        }
        EACH(int r = 0; r < R; r++) EACH(int v = 0; v < V; v++) {
            float *to = y + r * stride + (v < V - 1 ? (size_t)v * LANES : last);
            if (tile->ends) {
                if (tile->residual) sum[r][v] += load(tile->residual + (to - tile->outputs), whole, tail);
                sum[r][v] = SMALLER(spread(finish->high), LARGER(spread(finish->low), sum[r][v]));
            }
            store(to, sum[r][v], whole, tail);
        }
    }
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

/* The panels [from, to) of one height: vectors in parts of about the same width. Where there are two vectors, each part has two:
 * what the last one shares with the one before is loaded before either is stored. */
static void add_panels(const Tile *tile, const Finish *finish, const Packed *packed, size_t block, size_t from, size_t to) {
    uint32_t rows = packed->panel[from].rows;
    const Product *of = rows == 1 ? ONE : rows == 2 ? TWO : FOUR;
    int widest = rows == 1 ? PART_VECTORS : rows == 2 ? WIDE_TWO : WIDE_FOUR;
    int parts = (tile->vectors + widest - 1) / widest;
    for (size_t row = 0; row < rows; row += 4)
        for (int done = 0, v = 0; done < parts; done++) {
            int vectors = (tile->vectors - v) / (parts - done), inner = done < parts - 1;
            size_t position = (size_t)v * LANES, end = (size_t)(vectors - 1) * LANES;
            size_t last = inner ? end : tile->last - position, gathered = inner ? end : tile->gathered - position;
            of[vectors - 1](&(Part){tile, finish, packed, block, from, to, row, position, last, gathered});
            v += vectors;
        }
}

/* Rows of panels at a time: few, so that their weights stay in the L1 cache for all parts of the tile. */
enum { TOGETHER = 16 };

static void product(const Tile *tile, const Finish *finish, const Packed *packed, size_t block, size_t from, size_t to) {
    for (size_t end; from < to; from = end) {
        uint32_t rows = packed->panel[from].rows;
        for (end = from + 1; end < to && (end - from) * rows < TOGETHER && packed->panel[end].rows == rows;) end++;
        add_panels(tile, finish, packed, block, from, end);
    }
}

static void gather(const float *inputs, const size_t *offsets, size_t count, const Tile *tile, float *to) {
    int inner = tile->vectors - 1;
    for (size_t c = 0; c < count; c++, to += LANES) {
        const float *from = inputs + offsets[c];
        for (int v = 0; v < tile->vectors; v += LINE / VECTOR_BYTES) /* of the next tile: each column is elsewhere, nothing guesses it */
            __builtin_prefetch(from + (tile->vectors + v) * LANES, 0, 2);
        for (int v = 0; v < inner; v++, to += LANES) *(Vec *)to = (Vec) * (const Loose *)(from + v * LANES);
        *(Vec *)to = load(from + tile->last, tile->tail == LANES, tile->tail);
    }
}

/* R rows at one position: the rows are the vector; four sums, since each waits for the one before. */
#define DOT(R)                                                                                                                 \
    static void dot_##R(const float *inputs, float *outputs, const uint16_t *at, const float *values, size_t entries) {        \
        typedef float Rows __attribute__((vector_size(4 * R), aligned(4), may_alias));                                         \
        Rows sum[4] = {*(const Rows *)outputs, {0}, {0}, {0}};                                                                 \
        size_t n = 0;                                                                                                          \
        for (; n + 4 <= entries; n += 4)                                                                                       \
            EACH(int i = 0; i < 4; i++) {                                                                                      \
                sum[i] += *(const Rows *)(values + (n + i) * R) * inputs[at[n + i]];                                           \
                if (i * R % (LINE / 4) == 0) __builtin_prefetch(values + (n + i) * R + DOT_WEIGHTS_AHEAD, 0, 3);                       \
            }                                                                                                                  \
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

const Loops JOIN(loops_, ISA) = {TEXT(ISA), LANES, gather, product, dot};
