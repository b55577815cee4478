/* A product over many positions: tile by tile, and in a tile block by block of columns. */
#include "kernels.h"

void multiply(const Loops *loops, const Packed *packed, const Finish *finish, const Source *source, size_t from, size_t to,
              size_t positions, float *outputs, size_t stride, const float *residual, float *room) {
    size_t lanes = loops->lanes, vectors = (positions + lanes - 1) / lanes;
    size_t tiles = (vectors + loops->vectors - 1) / loops->vectors;
    size_t done = 0; /* vectors */
    for (size_t t = 0; t < tiles; t++) {
        Tile tile = {.inputs = room, .vectors = (int)((vectors - done) / (tiles - t)), .stride = stride};
        size_t position = done * lanes;
        tile.width = tile.vectors * lanes;
        size_t real = positions - position < tile.width ? positions - position : tile.width;
        tile.tail = (int)(real - (tile.vectors - 1) * lanes);
        tile.outputs = outputs + position;
        tile.residual = residual ? residual + position : NULL;
        for (size_t b = 0; b < packed->blocks; b++) {
            const uint32_t *columns = packed->used + packed->first[b];
            loops->gather(source, columns, packed->first[b + 1] - packed->first[b], position, tile.vectors, tile.tail, room);
            tile.begins = b == 0, tile.ends = b == packed->blocks - 1;
            for (size_t p = from; p < to; p++) {
                size_t n = b * packed->panels + p, start = packed->start[n], entries = packed->start[n + 1] - start;
                if (entries || tile.begins || tile.ends)
                    loops->product(&tile, finish, packed->panel[p], packed->at + start, packed->values + packed->value[n], entries);
            }
        }
        done += tile.vectors;
    }
}
