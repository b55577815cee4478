/* A product over many positions: tile by tile, and in a tile block by block of columns. */
#include "kernels.h"

void multiply(const Loops *loops, const Packed *packed, const Finish *finish, const Source *source, size_t from, size_t to,
              size_t positions, float *outputs, size_t stride, const float *residual, float *room) {
    size_t lanes = loops->lanes, vectors = (positions + lanes - 1) / lanes;
    int in_place = packed->in_place && positions >= lanes;
    size_t widest = in_place ? TILE_VECTORS : PART_VECTORS, tiles = (vectors + widest - 1) / widest;
    size_t gathered[MOST_COLUMNS];
    size_t done = 0; /* vectors */
    for (size_t t = 0; t < tiles; t++) {
        Tile tile = {.vectors = (int)((vectors - done) / (tiles - t)), .stride = stride};
        size_t position = done * lanes, width = tile.vectors * lanes;
        size_t real = positions - position < width ? positions - position : width;
        const float *inputs = source->inputs + position;
        tile.tail = (int)(real < lanes ? real : lanes);
        tile.last = real - tile.tail;
        tile.gathered = in_place ? tile.last : width - lanes;
        tile.outputs = outputs + position;
        tile.residual = residual ? residual + position : NULL;
        for (size_t c = 0; !in_place && c < packed->most; c++) gathered[c] = c * width;
        for (size_t b = 0; b < packed->blocks; b++) {
            const size_t *offsets = source->offsets + packed->first[b];
            if (!in_place) loops->gather(inputs, offsets, packed->first[b + 1] - packed->first[b], &tile, room);
            tile.inputs = in_place ? inputs : room;
            tile.offsets = in_place ? offsets : gathered;
            tile.begins = b == 0, tile.ends = b == packed->blocks - 1;
            loops->product(&tile, finish, packed, b, from, to);
        }
        done += tile.vectors;
    }
}
