/* Matrix products: tokens are positions, or, where there are few, one after the other. */
#include "kernels.h"

#include <string.h>

enum {
    FEW_TOKENS = 4,      /* below it each token is multiplied by itself */
    UNIT_ROWS = 512,     /* rows of outputs of a unit of work, which transposes its inputs itself */
    UNIT_TOKENS = 64,    /* and its tokens */
    UNIT_WEIGHTS = 1 << 15, /* weights that a unit has at least where there are few tokens */
};

typedef struct {
    const Loops *loops;
    const Packed *packed;
    const Finish *finish;
    const float *x;
    size_t tokens, bands, parts;
    float *y;
    const Threads *threads;
    volatile int failed;
} Work;

static inline float bounded(float x, const Finish *finish) {
    x = x < finish->low ? finish->low : x;
    return x > finish->high ? finish->high : x;
}

/* The panels of a part: whole panels, cut so that no part has more than UNIT_ROWS rows. */
static void panels_of_part(const Work *work, size_t part, size_t *from, size_t *to) {
    *from = work->packed->panels * part / work->parts;
    *to = work->packed->panels * (part + 1) / work->parts;
}

static size_t row_of(const Packed *packed, size_t panel) {
    return panel < packed->panels ? packed->panel[panel].row : packed->rows;
}

typedef float Four __attribute__((vector_size(16), aligned(4), may_alias));
#ifdef __clang__
#define MIX(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
typedef int32_t Which __attribute__((vector_size(16)));
#define MIX(a, b, i, j, k, l) __builtin_shuffle(a, b, (Which){i, j, k, l})
#endif

/* from: [rows, columns], of whose rows each begins from_stride floats after the one before; to: [columns, rows]. */
static void transpose(const float *from, size_t from_stride, size_t rows, size_t columns, float *to, size_t to_stride) {
    size_t whole_rows = rows / 4 * 4, whole_columns = columns / 4 * 4;
    for (size_t c = 0; c < whole_columns; c += 4)
        for (size_t r = 0; r < whole_rows; r += 4) {
            Four in[4], pair[4];
            for (size_t i = 0; i < 4; i++) in[i] = *(const Four *)(from + (r + i) * from_stride + c);
            pair[0] = MIX(in[0], in[1], 0, 4, 1, 5), pair[1] = MIX(in[0], in[1], 2, 6, 3, 7);
            pair[2] = MIX(in[2], in[3], 0, 4, 1, 5), pair[3] = MIX(in[2], in[3], 2, 6, 3, 7);
            for (size_t i = 0; i < 2; i++) {
                *(Four *)(to + (c + 2 * i) * to_stride + r) = MIX(pair[i], pair[i + 2], 0, 1, 4, 5);
                *(Four *)(to + (c + 2 * i + 1) * to_stride + r) = MIX(pair[i], pair[i + 2], 2, 3, 6, 7);
            }
        }
    for (size_t r = 0; r < rows; r++) /* what is left */
        for (size_t c = r < whole_rows ? whole_columns : 0; c < columns; c++) to[c * to_stride + r] = from[r * from_stride + c];
}

/* Many tokens: inputs are transposed, multiplied, and transposed back. */
static void many_tokens(void *argument, size_t unit) {
    Work *work = argument;
    const Packed *packed = work->packed;
    size_t from, to, token = unit / work->parts * UNIT_TOKENS;
    size_t tokens = work->tokens - token < UNIT_TOKENS ? work->tokens - token : UNIT_TOKENS;
    panels_of_part(work, unit % work->parts, &from, &to);
    size_t row = row_of(packed, from), rows = row_of(packed, to) - row;
    /* One piece of memory: a tile, offsets, inputs and outputs. */
    size_t floats = (packed->columns + rows) * tokens;
    void *memory = borrow(work->threads, LINE + TILE_BYTES + packed->columns * sizeof(size_t) + floats * sizeof(float));
    if (!memory) {
        work->failed = 1;
        return;
    }
    float *room = (float *)(((uintptr_t)memory + LINE - 1) / LINE * LINE);
    size_t *offsets = (size_t *)(room + TILE_FLOATS);
    float *transposed = (float *)(offsets + packed->columns), *outputs = transposed + packed->columns * tokens;
    for (size_t c = 0; c < packed->columns; c++) offsets[c] = c * tokens;
    keep_used(packed, offsets);
    transpose(work->x + token * packed->columns, packed->columns, tokens, packed->columns, transposed, tokens);
    Source source = {transposed, offsets};
    multiply(work->loops, packed, work->finish, &source, from, to, tokens, outputs - row * tokens, tokens, NULL, room);
    transpose(outputs, tokens, rows, tokens, work->y + token * packed->rows + row, packed->rows);
    give_back(work->threads, memory);
}

/* One token: the weights are read once, in their order. */
static void one_token(void *argument, size_t unit) {
    Work *work = argument;
    const Packed *packed = work->packed;
    const Finish *finish = work->finish;
    float inputs[MOST_COLUMNS];
    size_t from, to, token = unit / work->parts;
    panels_of_part(work, unit % work->parts, &from, &to);
    const float *x = work->x + token * packed->columns;
    float *y = work->y + token * packed->rows;
    size_t first = row_of(packed, from), end = row_of(packed, to);
    for (size_t r = first; r < end; r++) y[r] = finish->bias ? finish->bias[r] : 0;
    for (size_t b = 0; b < packed->blocks; b++) {
        for (uint32_t u = packed->first[b]; u < packed->first[b + 1]; u++) inputs[u - packed->first[b]] = x[packed->used[u]];
        work->loops->dot(inputs, y, packed, b, from, to);
    }
    for (size_t r = first; r < end; r++) y[r] = bounded(y[r], finish);
}

int matrix_product(const Loops *loops, const Packed *packed, const Finish *finish, const float *x, size_t tokens, float *y,
                   const Threads *threads) {
    Work work = {loops, packed, finish, x, tokens, 0, 1, y, threads};
    if (tokens < FEW_TOKENS) {
        work.parts = packed->stored / UNIT_WEIGHTS + 1;
        if (work.parts > packed->panels) work.parts = packed->panels;
        run_units(threads, one_token, tokens * work.parts, &work);
        return 0;
    }
    work.bands = (tokens + UNIT_TOKENS - 1) / UNIT_TOKENS;
    work.parts = (packed->rows + UNIT_ROWS - 1) / UNIT_ROWS;
    if (work.parts > packed->panels) work.parts = packed->panels;
    run_units(threads, many_tokens, work.bands * work.parts, &work);
    return work.failed ? -1 : 0;
}
