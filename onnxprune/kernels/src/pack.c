/* Dense weights become panels of entries. */
#include "kernels.h"

#include <stdlib.h>
#include <string.h>

/* The matrix that is packed. */
typedef struct {
    const float *at;
    size_t rows, columns, row_step, column_step;
    unsigned char *stored; /* [rows, columns], whether a weight is not zero; NaN is not */
} Dense;

static float weight_at(const Dense *dense, size_t row, size_t column) {
    return dense->at[row * dense->row_step + column * dense->column_step];
}

/* Find the weights that are not zero, in the order in which they lie in memory. */
static void find_stored(const Dense *dense) {
    if (dense->column_step <= dense->row_step) {
        for (size_t r = 0; r < dense->rows; r++)
            for (size_t c = 0; c < dense->columns; c++) dense->stored[r * dense->columns + c] = weight_at(dense, r, c) != 0;
    } else {
        for (size_t c = 0; c < dense->columns; c++)
            for (size_t r = 0; r < dense->rows; r++) dense->stored[r * dense->columns + c] = weight_at(dense, r, c) != 0;
    }
}

static int is_stored(const Dense *dense, size_t row, size_t rows, size_t column) {
    const unsigned char *at = dense->stored + row * dense->columns + column;
    for (size_t r = 0; r < rows; r++, at += dense->columns)
        if (*at) return 1;
    return 0;
}

/* The heights of panels: as many of R rows as there are, and the rest one by one. */
static size_t panels_of(size_t rows, size_t height) { return rows / height + rows % height; }

static Panel panel_at(size_t rows, size_t height, size_t index) {
    size_t whole = rows / height;
    if (index < whole) return (Panel){(uint32_t)(index * height), (uint32_t)height};
    return (Panel){(uint32_t)(whole * height + index - whole), 1};
}

/* How long a weight takes in a panel of R rows, relative to one that keeps the arithmetic units busy: an input is loaded for
 * each weight where R is 1, for every fourth where R is 4. Measured with AVX2. */
static const struct {
    size_t height;
    double cost;
} HEIGHTS[] = {{1, 1.25}, {2, 1.08}, {4, 1.0}, {8, 0.98}, {16, 0.97}};

/* The height of panels for which the stored blocks, their zeros included, take the least time. */
static size_t best_height(const Dense *dense, size_t *stored) {
    size_t best = 1;
    double least = 0;
    for (size_t i = 0; i < sizeof HEIGHTS / sizeof *HEIGHTS; i++) {
        size_t height = HEIGHTS[i].height, weights = 0;
        if (height > dense->rows) break;
        for (size_t p = 0; p < panels_of(dense->rows, height); p++) {
            Panel panel = panel_at(dense->rows, height, p);
            for (size_t c = 0; c < dense->columns; c++) weights += is_stored(dense, panel.row, panel.rows, c) ? panel.rows : 0;
        }
        double cost = HEIGHTS[i].cost * (double)weights;
        if (i == 0 || cost < least) best = height, least = cost, *stored = weights;
    }
    return best;
}

static void list_columns(Packed *packed, const Dense *dense) {
    size_t count = 0;
    for (size_t c = 0; c < dense->columns; c++)
        if (is_stored(dense, 0, dense->rows, c)) packed->used[count++] = (uint32_t)c;
    packed->blocks = (count + packed->most - 1) / packed->most;
    if (packed->blocks == 0) packed->blocks = 1; /* an empty one, so that bias and activation are applied */
    for (size_t b = 0; b <= packed->blocks; b++) /* of about the same size */
        packed->first[b] = (uint32_t)(count * b / packed->blocks);
}

/* Count entries and weights, or write them. */
static void fill(Packed *packed, const Dense *dense) {
    uint32_t entry = 0, value = 0;
    for (size_t b = 0; b < packed->blocks; b++)
        for (size_t p = 0; p < packed->panels; p++) {
            Panel panel = packed->panel[p];
            packed->start[b * packed->panels + p] = entry;
            packed->value[b * packed->panels + p] = value;
            for (uint32_t u = packed->first[b]; u < packed->first[b + 1]; u++) {
                size_t column = packed->used[u];
                if (!is_stored(dense, panel.row, panel.rows, column)) continue;
                if (packed->values) {
                    packed->at[entry] = (uint16_t)(u - packed->first[b]);
                    for (size_t r = 0; r < panel.rows; r++)
                        packed->values[value + r] = weight_at(dense, panel.row + r, column);
                }
                entry++, value += panel.rows;
            }
        }
    packed->start[packed->blocks * packed->panels] = entry;
    packed->value[packed->blocks * packed->panels] = packed->stored = value;
}

/* Fill what is allocated as far as sizes are known; false where memory is short. */
static int pack_dense(Packed *packed, const Dense *dense) {
    size_t stored = 0, height = best_height(dense, &stored);
    packed->in_place = height >= IN_PLACE_ROWS;
    if (packed->in_place)
        packed->most = MOST_COLUMNS;
    else if (stored * packed->most / 2 >= dense->rows * dense->columns * ENTRIES)
        packed->most /= 2; /* half of the room, and all of it where a panel would have few entries in a block */
    packed->panels = panels_of(dense->rows, height);
    packed->panel = malloc((packed->panels + 1) * sizeof *packed->panel);
    packed->used = malloc((dense->columns + 1) * sizeof *packed->used);
    packed->first = malloc((dense->columns / packed->most + 3) * sizeof *packed->first);
    if (!packed->panel || !packed->used || !packed->first) return 0;
    for (size_t p = 0; p < packed->panels; p++) packed->panel[p] = panel_at(dense->rows, height, p);
    list_columns(packed, dense);
    size_t count = packed->blocks * packed->panels + 1;
    packed->start = malloc(count * sizeof *packed->start);
    packed->value = malloc(count * sizeof *packed->value);
    if (!packed->start || !packed->value) return 0;
    fill(packed, dense);
    packed->at = calloc(packed->start[count - 1] + MOST_LANES, sizeof *packed->at);
    packed->values = calloc(packed->stored + MOST_LANES, sizeof *packed->values);
    if (!packed->at || !packed->values) return 0;
    fill(packed, dense);
    return 1;
}

Packed *pack(const Loops *loops, const float *weights, size_t rows, size_t columns, size_t row_step, size_t column_step) {
    Dense dense = {weights, rows, columns, row_step, column_step, malloc(rows * columns + 1)};
    Packed *packed = calloc(1, sizeof *packed);
    int done = 0;
    if (packed && dense.stored) {
        packed->rows = rows, packed->columns = columns;
        packed->most = TILE_FLOATS / (PART_VECTORS * loops->lanes);
        find_stored(&dense);
        done = pack_dense(packed, &dense);
    }
    free(dense.stored);
    if (done) return packed;
    free_packed(packed);
    return NULL;
}

/* The float16 that has exactly the value of a float; false where there is none. */
static int as_half(float value, uint16_t *half) {
    uint32_t bits, sign, exponent, lost;
    memcpy(&bits, &value, sizeof bits);
    sign = bits >> 16 & 0x8000, exponent = bits >> 23 & 0xff;
    if (!(bits << 1)) return *half = (uint16_t)sign, 1;
    if (exponent < 103 || exponent > 142) return 0; /* below 2^-24; 2^16 and more, infinite, not a number */
    lost = exponent < 113 ? 126 - exponent : 13; /* bits of the fraction: numbers below 2^-14 have fewer */
    uint32_t fraction = (bits & 0x7fffff) | 0x800000;
    if (fraction & ((1u << lost) - 1)) return 0;
    /* The leading one of a normal number adds one to its exponent. */
    *half = (uint16_t)(sign | ((exponent < 113 ? 0 : exponent - 113) << 10) + (fraction >> lost));
    return 1;
}

/* Weights from which they are stored as float16: about a megabyte, which would not stay in the cache from run to run. With fewer,
 * widening them for many tokens would cost more than few tokens gain. */
enum { NARROW_FROM = 1 << 18 };

void narrow(Packed *packed) {
    if (packed->stored < NARROW_FROM) return;
    uint16_t *halves = calloc(packed->stored + MOST_LANES, sizeof *halves);
    for (size_t i = 0; halves && i < packed->stored; i++)
        if (!as_half(packed->values[i], halves + i)) {
            free(halves);
            return;
        }
    if (!halves) return; /* float32 does as well */
    free(packed->values);
    packed->values = NULL, packed->halves = halves;
}

void keep_used(const Packed *packed, size_t *offsets) {
    size_t count = packed->first[packed->blocks];
    for (size_t u = 0; u < count; u++) offsets[u] = offsets[packed->used[u]]; /* which is not before u */
}

void free_packed(Packed *packed) {
    if (!packed) return;
    free(packed->panel), free(packed->used), free(packed->first), free(packed->start), free(packed->value), free(packed->at);
    free(packed->values), free(packed->halves), free(packed);
}
