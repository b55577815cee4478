/* Sparse products over tiles of positions: what the parts of the library know of each other.
 *
 * A convolution and a matrix product are one thing here: a matrix of weights [rows, columns], most of which are zero, times a
 * matrix of inputs [columns, positions]. A row is an output channel. A column is an input channel at one place of the window.
 * A position is a pixel of the output, or a token.
 */
#ifndef ONNXPRUNE_KERNELS_H
#define ONNXPRUNE_KERNELS_H

#include <stddef.h>
#include <stdint.h>

enum {
    MOST_LANES = 16,       /* floats in a vector of the widest instruction set */
    IN_PLACE_ROWS = 4,     /* of panels that read inputs where they are, at least */
    PART_VECTORS = 8,      /* vectors of positions whose sums are registers at a time, at most; a tile of gathered inputs has these */
    TILE_VECTORS = 24,     /* of a tile whose inputs are read in place: weights come to the L1 cache once for all its parts */
    TILE_BYTES = 64 << 10, /* of inputs that are gathered at a time, at most: they must stay close to the processor */
    TILE_FLOATS = TILE_BYTES / 4,
    MOST_COLUMNS = TILE_FLOATS / MOST_LANES, /* of a block: a vector of each can be gathered; six of each stay in the L2 cache */
    ENTRIES = 32,          /* that a panel has in a block, about: with fewer, sums are loaded and stored too often */
    LINE = 64,             /* bytes of a line of the cache */
};

/* Rows that share their columns: R x 1 blocks, one below the other in memory. */
typedef struct {
    uint32_t row;  /* the first */
    uint32_t rows; /* R: 1, 2, 4, 8 or 16 */
} Panel;

/* The weights of a layer in the order in which they are read: block of columns, panel, column, row.
 *
 * A block has so many columns that their inputs stay close to the processor while all panels read them. Columns that only have
 * zeros are in no block.
 *
 * Panels of many rows read inputs where they are, panels of few rows inputs that are gathered first: with R rows a load of inputs
 * serves R sums, so that it may cross a line of the cache (two accesses) where R is 4, and must not where R is 1.
 *
 * Few tokens wait for weights to come from memory. Those that float16 can hold come in half of the bytes, and are widened where
 * they are used: what is computed is the same bit for bit.
 */
typedef struct {
    size_t rows, columns;  /* of the dense matrix */
    size_t panels, blocks; /* counts */
    size_t most;           /* columns in a block, at most */
    int in_place;          /* whether inputs are read where they are */
    Panel *panel;          /* [panels] */
    uint32_t *used;        /* the columns of all blocks, in ascending order */
    uint32_t *first;       /* where each block begins in `used`; [blocks + 1] */
    uint32_t *start;       /* where a panel begins in `at`, block by block; [blocks * panels + 1] */
    uint32_t *value;        /* where its weights begin in `values`; [blocks * panels + 1] */
    uint16_t *at;          /* of each entry: its column, counted in the block */
    float *values;         /* R weights of each entry; null where there are `halves` */
    uint16_t *halves;      /* the same as float16, or null */
    size_t stored;         /* weights that are stored */
} Packed;

/* What a product is done with afterwards: bias, residual, and bounds of the activation. */
typedef struct {
    const float *bias; /* [rows], or null */
    float low, high;   /* -inf and inf where there are none */
} Finish;

/* One tile of outputs while a block of columns is added to it. Its last vector ends at the last position: where positions fill no
 * whole number of vectors, it overlaps the one before, and both compute the same. */
typedef struct {
    const float *inputs;   /* column c of the block begins at inputs + offsets[c] */
    const size_t *offsets; /* [columns of the block] */
    int vectors;           /* 1 to PART_VECTORS or TILE_VECTORS */
    int tail;              /* floats of the last vector: fewer than lanes only where it is the only one */
    size_t last, gathered; /* where the last vector begins in the tile's outputs, and in its inputs */
    float *outputs;        /* of row 0 at the first position */
    size_t stride;         /* floats from a row of outputs to the next */
    const float *residual; /* as outputs, or null */
    int begins, ends;      /* whether this is the first block, the last one */
} Tile;

/* Inputs: the used column u at positions 0 .. is inputs + offsets[u]. */
typedef struct {
    const float *inputs;
    const size_t *offsets;
} Source;

/* The loops that are compiled once for each instruction set. */
typedef struct {
    const char *name;
    size_t lanes; /* floats in a vector */
    /* Copy the inputs of a tile so that they lie close together and all vectors are aligned. [count, vectors * lanes]
     * inputs: at the tile's first position. */
    void (*gather)(const float *inputs, const size_t *offsets, size_t count, const Tile *tile, float *to);
    /* Add the panels [from, to) of a block to a tile. */
    void (*product)(const Tile *tile, const Finish *finish, const Packed *packed, size_t block, size_t from, size_t to);
    /* Add the panels [from, to) of a block to one column of outputs: the product of one position. */
    void (*dot)(const float *inputs, float *outputs, const Packed *packed, size_t block, size_t from, size_t to);
} Loops;

/* The fastest loops of this processor, or those that ONNXPRUNE_KERNELS_ISA names. */
const Loops *best_loops(void);

/* Pack a dense matrix whose element (row, column) is at weights[row * row_step + column * column_step], for these loops.
 * Null where memory is short. */
Packed *pack(const Loops *loops, const float *weights, size_t rows, size_t columns, size_t row_step, size_t column_step);
/* Store the weights as float16 if it can hold every one of them. */
void narrow(Packed *packed);
void free_packed(Packed *packed);

/* Keep the offsets of used columns, in their order, of those of all columns. */
void keep_used(const Packed *packed, size_t *offsets);

/* Runs `work` for 0 .. units - 1, on the threads of the session. */
typedef struct Threads Threads;
void run_units(const Threads *threads, void (*work)(void *, size_t), size_t units, void *argument);

/* The outputs of the panels [from, to) at `positions` consecutive positions, tile after tile.
 * room: TILE_FLOATS floats, aligned to a line of the cache. */
void multiply(const Loops *loops, const Packed *packed, const Finish *finish, const Source *source, size_t from, size_t to,
              size_t positions, float *outputs, size_t stride, const float *residual, float *room);

/* Numbers about a convolution over two axes; one over one axis has height 1. */
typedef struct {
    int64_t batch, channels, height, width, outputs, groups;
    int64_t kernel[2], stride[2], dilation[2], pad[4]; /* pads: top, left, bottom, right */
    int64_t out[2];
} Window;

/* The sizes of the output; false where a number makes no sense. */
int measure_window(Window *window);

/* Memory for a unit of work while it runs. */
void *borrow(const Threads *threads, size_t bytes);
void give_back(const Threads *threads, void *memory);

/* Both return 0, or -1 where memory is short. packed: one for each group. */
int convolve(const Loops *loops, Packed *const *packed, const Finish *finish, const Window *window, const float *x,
             const float *residual, float *y, const Threads *threads);
int matrix_product(const Loops *loops, const Packed *packed, const Finish *finish, const float *x, size_t tokens, float *y,
                   const Threads *threads);

#endif
