/* The innermost loops. Compiled once for each instruction set, with -DISA=its name and -DVECTOR_BYTES=the size of its vectors:
 * the compiler's own vector types become its registers. */
#include "kernels.h"

#ifdef __SSE__
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
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

/* R weights at a time, from float32 and from float16. A number of float16 is that of float32 with another bias of the exponent; one
 * below 2^-14 has no leading one: it is put there, and taken away as a number. */
typedef uint16_t half;
#define ROWS(R)                                                                        \
    typedef float Rows##R __attribute__((vector_size(4 * R), aligned(4), may_alias));  \
    typedef half Halves##R __attribute__((vector_size(2 * R), aligned(2), may_alias)); \
    static inline Rows##R float_##R(const float *at) { return *(const Rows##R *)at; }
#define WIDENED(R)                                                                                  \
    typedef uint32_t Bits##R __attribute__((vector_size(4 * R)));                                   \
    static inline Rows##R half_##R(const half *at) {                                                \
        Bits##R bits = __builtin_convertvector(*(const Halves##R *)at, Bits##R);                    \
        Bits##R rest = (bits & 0x7fff) << 13, small = (Bits##R)(rest < 1u << 23) & 1u << 23;        \
        Rows##R one = (Rows##R)(small * 113), found = (Rows##R)(rest + (112u << 23) + small) - one; \
        return (Rows##R)((Bits##R)found | (bits & 0x8000) << 16);                                   \
    }
#define WIDENED_TWICE(R, H)                                                           \
    static inline Rows##R half_##R(const half *at) {                                  \
        Rows##R both;                                                                 \
        *(Rows##H *)&both = half_##H(at), *((Rows##H *)&both + 1) = half_##H(at + H); \
        return both;                                                                  \
    }
ROWS(1) ROWS(2) ROWS(4) ROWS(8) ROWS(16) WIDENED(1) WIDENED(2)
#if defined(__F16C__)
static inline Rows4 half_4(const half *at) { return (Rows4)_mm_cvtph_ps(_mm_loadl_epi64((const __m128i *)at)); }
static inline Rows8 half_8(const half *at) { return (Rows8)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)at)); }
#elif defined(__ARM_NEON)
static inline Rows4 half_4(const half *at) { return (Rows4)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(at))); }
WIDENED_TWICE(8, 4)
#else
WIDENED(4) WIDENED_TWICE(8, 4)
#endif
#ifdef __AVX512F__
static inline Rows16 half_16(const half *at) { return (Rows16)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)at)); }
#else
WIDENED_TWICE(16, 8)
#endif

/* What R rows times V vectors of positions have in common: where they are, and what is added. */
typedef struct {
    const Tile *tile;
    const Finish *finish;
    const Packed *packed;
    size_t block, from, to; /* panels [from, to) of a block; they have the same height */
    size_t row;             /* rows of a panel before these: more than 0 where it has more rows than there are registers for */
    size_t position;        /* of the first vector in the tile */
    size_t last, gathered;  /* of the last vector from the first, in outputs and in inputs */
    const float *values;    /* the weights of panel `from` and those behind it */
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
        const float *w = part->values + (value[p] - value[part->from]) + part->row;
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
        if (tile->ends) {
            if (tile->residual) {
                const float *added = tile->residual + (y - tile->outputs);
                EACH(int r = 0; r < R; r++) EACH(int v = 0; v < V; v++)
                    sum[r][v] += load(added + r * stride + (v < V - 1 ? (size_t)v * LANES : last), whole, tail);
            }
            EACH(int r = 0; r < R; r++) EACH(int v = 0; v < V; v++)
                sum[r][v] = SMALLER(spread(finish->high), LARGER(spread(finish->low), sum[r][v]));
        }
        EACH(int r = 0; r < R; r++) EACH(int v = 0; v < V; v++)
            store(y + r * stride + (v < V - 1 ? (size_t)v * LANES : last), sum[r][v], whole, tail);
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
static void add_panels(const Tile *tile, const Finish *finish, const Packed *packed, size_t block, size_t from, size_t to,
                       const float *values) {
    uint32_t rows = packed->panel[from].rows;
    const Product *of = rows == 1 ? ONE : rows == 2 ? TWO : FOUR;
    int widest = rows == 1 ? PART_VECTORS : rows == 2 ? WIDE_TWO : WIDE_FOUR;
    int parts = (tile->vectors + widest - 1) / widest;
    for (size_t row = 0; row < rows; row += 4)
        for (int done = 0, v = 0; done < parts; done++) {
            int vectors = (tile->vectors - v) / (parts - done), inner = done < parts - 1;
            size_t position = (size_t)v * LANES, end = (size_t)(vectors - 1) * LANES;
            size_t last = inner ? end : tile->last - position, gathered = inner ? end : tile->gathered - position;
            of[vectors - 1](&(Part){tile, finish, packed, block, from, to, row, position, last, gathered, values});
            v += vectors;
        }
}

/* Rows of panels at a time: few, so that their weights stay in the L1 cache for all parts of the tile. */
enum { TOGETHER = 16 };

/* Panels with weights in float16, which are widened for all positions of the tile. */
static void add_narrow_panels(const Tile *tile, const Finish *finish, const Packed *packed, size_t block, size_t from, size_t to) {
    float values[TOGETHER * MOST_COLUMNS];
    const uint32_t *value = packed->value + block * packed->panels;
    const half *halves = packed->halves + value[from];
    size_t count = value[to] - value[from], i = 0;
    for (; i + 16 <= count; i += 16) *(Rows16 *)(values + i) = half_16(halves + i);
    for (; i < count; i++) *(Rows1 *)(values + i) = half_1(halves + i);
    add_panels(tile, finish, packed, block, from, to, values);
}

static void product(const Tile *tile, const Finish *finish, const Packed *packed, size_t block, size_t from, size_t to) {
    for (size_t end; from < to; from = end) {
        uint32_t rows = packed->panel[from].rows;
        for (end = from + 1; end < to && (end - from) * rows < TOGETHER && packed->panel[end].rows == rows;) end++;
        if (packed->halves)
            add_narrow_panels(tile, finish, packed, block, from, end);
        else
            add_panels(tile, finish, packed, block, from, end, packed->values + packed->value[block * packed->panels + from]);
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
#define DOT(R, TYPE)                                                                                                               \
    static void dot_##TYPE##_##R(const float *inputs, float *outputs, const uint16_t *at, const TYPE *values, size_t entries) {    \
        Rows##R sum[4] = {*(const Rows##R *)outputs, {0}, {0}, {0}};                                                               \
        size_t n = 0;                                                                                                              \
        for (; n + 4 <= entries; n += 4)                                                                                           \
            EACH(int i = 0; i < 4; i++) {                                                                                          \
                sum[i] += TYPE##_##R(values + (n + i) * R) * inputs[at[n + i]];                                                    \
                if (i * R % (int)(LINE / sizeof *values) == 0) __builtin_prefetch(values + (n + i) * R + DOT_WEIGHTS_AHEAD, 0, 3); \
            }                                                                                                                      \
        for (; n < entries; n++) sum[0] += TYPE##_##R(values + n * R) * inputs[at[n]];                                             \
        *(Rows##R *)outputs = (sum[0] + sum[1]) + (sum[2] + sum[3]);                                                               \
    }
#ifdef __AVX512F__
/* One row at one position: its entries are the vector. What lies behind the last one is read, and counts as zero. */
#define DOT_ROW(TYPE)                                                                                                           \
    static void dot_##TYPE##_1(const float *inputs, float *outputs, const uint16_t *at, const TYPE *values, size_t entries) {   \
        __m512 sum = _mm512_setzero_ps();                                                                                       \
        for (size_t n = 0; n < entries; n += LANES) {                                                                           \
            __mmask16 there = entries - n < LANES ? (__mmask16)((1u << (entries - n)) - 1) : 0xffff;                            \
            __m512i where = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(at + n)));                               \
            __m512 input = _mm512_mask_i32gather_ps(_mm512_setzero_ps(), there, where, inputs, sizeof *inputs);                 \
            sum = _mm512_fmadd_ps(_mm512_maskz_mov_ps(there, (__m512)TYPE##_16(values + n)), input, sum);                       \
            for (size_t ahead = 0; ahead < LANES * sizeof *values; ahead += LINE)                                               \
                __builtin_prefetch((const char *)(values + n + DOT_WEIGHTS_AHEAD) + ahead, 0, 3);                               \
        }                                                                                                                       \
        *outputs += _mm512_reduce_add_ps(sum);                                                                                  \
    }
#else
#define DOT_ROW(TYPE) DOT(1, TYPE)
#endif
#define DOTS(TYPE) DOT_ROW(TYPE) DOT(2, TYPE) DOT(4, TYPE) DOT(8, TYPE) DOT(16, TYPE)
DOTS(float) DOTS(half)

static void dot(const float *inputs, float *outputs, const Packed *packed, size_t block, size_t from, size_t to) {
    const uint32_t *start = packed->start + block * packed->panels, *value = packed->value + block * packed->panels;
#define OF(R)                                                                                    \
    if (packed->halves)                                                                          \
        dot_half_##R(inputs, y, packed->at + start[p], packed->halves + value[p], entries);      \
    else                                                                                         \
        dot_float_##R(inputs, y, packed->at + start[p], packed->values + value[p], entries);     \
    break
    for (size_t p = from; p < to; p++) {
        float *y = outputs + packed->panel[p].row;
        size_t entries = start[p + 1] - start[p];
        switch (packed->panel[p].rows) {
        case 1: OF(1);
        case 2: OF(2);
        case 4: OF(4);
        case 8: OF(8);
        default: OF(16);
        }
    }
}

const Loops JOIN(loops_, ISA) = {TEXT(ISA), LANES, gather, product, dot};
