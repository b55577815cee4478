/* Runs the kernels without ONNX Runtime, so that an emulator of another processor can: cases come on stdin, outputs go to stdout.
 *
 * A case: 17 numbers (int64: 0 for a product or 1 for a convolution, batch or tokens, channels, height, width, outputs, groups,
 * two of kernel, stride and dilation, four of padding), two flags (int64: bias, residual), two bounds (float), then the tensors
 * (float): inputs, weights [outputs, columns], bias, residual.
 */
#include "kernels.h"

#include <stdio.h>
#include <stdlib.h>

struct Threads {
    int none;
};

void run_units(const Threads *threads, void (*work)(void *, size_t), size_t units, void *argument) {
    (void)threads;
    for (size_t unit = 0; unit < units; unit++) work(argument, unit);
}

void *borrow(const Threads *threads, size_t bytes) {
    (void)threads;
    return malloc(bytes ? bytes : 1);
}

void give_back(const Threads *threads, void *memory) {
    (void)threads;
    free(memory);
}

static float *tensor(size_t count) {
    float *found = malloc(count * sizeof *found + 1);
    if (!found || fread(found, sizeof *found, count, stdin) != count) exit(2);
    return found;
}

int main(void) {
    const Loops *loops = best_loops();
    int64_t number[19];
    fprintf(stderr, "%s\n", loops->name);
    while (fread(number, sizeof *number, 19, stdin) == 19) {
        Window window = {number[1], number[2], number[3], number[4], number[5], number[6],
                         {number[7], number[8]}, {number[9], number[10]}, {number[11], number[12]},
                         {number[13], number[14], number[15], number[16]}, {0, 0}};
        if (!measure_window(&window)) return 3;
        size_t groups = (size_t)window.groups, rows = (size_t)window.outputs;
        size_t columns = (size_t)(window.channels / window.groups * window.kernel[0] * window.kernel[1]);
        size_t inputs = (size_t)(window.batch * window.channels * window.height * window.width);
        size_t outputs = (size_t)(window.batch * window.outputs * window.out[0] * window.out[1]);
        float *bounds = tensor(2), *x = tensor(inputs), *w = tensor(rows * columns);
        float *bias = number[17] ? tensor(rows) : NULL, *residual = number[18] ? tensor(outputs) : NULL;
        float *y = malloc(outputs * sizeof *y + 1);
        Packed **packed = calloc(groups, sizeof *packed);
        if (!y || !packed) return 4;
        for (size_t g = 0; g < groups; g++) {
            packed[g] = pack(loops, w + g * (rows / groups) * columns, rows / groups, columns, columns, 1);
            if (!packed[g]) return 4;
            if (!number[0]) narrow(packed[g]);
        }
        Finish finish = {bias, bounds[0], bounds[1]};
        int failed = number[0] ? convolve(loops, packed, &finish, &window, x, residual, y, NULL)
                               : matrix_product(loops, packed[0], &finish, x, (size_t)window.batch, y, NULL);
        if (failed || fwrite(y, sizeof *y, outputs, stdout) != outputs) return 5;
        for (size_t g = 0; g < groups; g++) free_packed(packed[g]);
        free(bounds), free(x), free(w), free(bias), free(residual), free(y), free(packed);
    }
    return 0;
}
