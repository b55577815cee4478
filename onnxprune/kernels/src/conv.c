/* Convolutions: a band of output rows at a time, whose inputs are laid out so that the positions of every column of weights lie
 * one after the other. */
#include "kernels.h"

#include <string.h>

enum {
    BAND_BYTES = 256 << 10, /* of laid-out inputs: they stay in the L2 cache */
    FEW_TILES = 2,          /* that a band has at least */
    MOST_SIZE = 1 << 30,    /* of any number that is read from a file */
    UNITS = 16,             /* units of work that a convolution is at least cut in, for threads */
    FEW_ROWS = 64,          /* that a unit has at least */
    FEW_GATHERED_ROWS = 256, /* the same where each unit gathers its inputs itself */
    FEW_CHANNELS = 64,      /* that are laid out at a time */
};

int measure_window(Window *window) {
    int64_t size[2] = {window->height, window->width};
    if (window->batch < 0 || window->channels < 1 || window->outputs < 1 || window->groups < 1) return 0;
    if (window->channels % window->groups || window->outputs % window->groups) return 0;
    for (int axis = 0; axis < 2; axis++) {
        int64_t before = window->pad[axis], after = window->pad[axis + 2];
        int64_t numbers[] = {size[axis], window->kernel[axis], window->stride[axis], window->dilation[axis]};
        for (size_t i = 0; i < 4; i++)
            if (numbers[i] < 1 || numbers[i] > MOST_SIZE) return 0;
        if (before < 0 || after < 0 || before > MOST_SIZE || after > MOST_SIZE) return 0;
        int64_t reach = (window->kernel[axis] - 1) * window->dilation[axis] + 1;
        int64_t room = size[axis] + before + after - reach;
        if (room < 0) return 0;
        window->out[axis] = room / window->stride[axis] + 1;
    }
    return 1;
}

/* The inputs of a band: planes [kernel column, channel, phase], each of rows as wide as the output. A kernel row reads every
 * stride-th row of the input: those rows lie one after the other in the plane of their phase. */
typedef struct {
    const Window *window;
    int64_t phases, rows; /* of the vertical stride; rows of a plane */
} Layout;

static Layout layout_of(const Window *window, int64_t band) {
    int64_t stride = window->stride[0], reach = (window->kernel[0] - 1) * window->dilation[0];
    int64_t phases = reach < stride ? reach + 1 : stride;
    return (Layout){window, phases, band + reach / stride};
}

/* Where each column of weights begins in the planes. [channels of a group * kernel] */
static void list_offsets(const Layout *layout, size_t *offsets) {
    const Window *window = layout->window;
    int64_t channels = window->channels / window->groups;
    for (int64_t channel = 0; channel < channels; channel++)
        for (int64_t ky = 0; ky < window->kernel[0]; ky++)
            for (int64_t kx = 0; kx < window->kernel[1]; kx++) {
                int64_t down = ky * window->dilation[0];
                int64_t plane = (kx * channels + channel) * layout->phases + down % window->stride[0];
                *offsets++ = (size_t)((plane * layout->rows + down / window->stride[0]) * window->out[1]);
            }
}

/* One row of a plane: every stride-th input from a column on, zeros outside; all zeros where there is no such row. */
static void lay_row(const Window *window, const float *row, int64_t column, float *to) {
    int64_t stride = window->stride[1], out = window->out[1];
    int64_t first = column < 0 ? (-column + stride - 1) / stride : 0;
    int64_t end = window->width > column ? (window->width - column + stride - 1) / stride : 0;
    if (!row || first > out) first = out;
    if (end > out) end = out;
    if (end < first) end = first;
    memset(to, 0, first * sizeof *to);
    if (stride == 2) /* a constant, so that the compiler makes vectors of it */
        for (int64_t x = first; x < end; x++) to[x] = row[column + x * 2];
    else
        for (int64_t x = first; x < end; x++) to[x] = row[column + x * stride];
    memset(to + end, 0, (out - end) * sizeof *to);
}

/* A plane where nothing is skipped and rows are as wide as those of the input: it is the input, some columns further. */
static void lay_plane(const Layout *layout, const float *channel, int64_t top, int64_t shift, float *to) {
    const Window *window = layout->window;
    int64_t width = window->width, above = window->pad[0] - top; /* rows of zeros above the input */
    int64_t first = above > 0 ? above : 0, end = window->height + above;
    if (end > layout->rows) end = layout->rows;
    if (end <= first || shift >= width || -shift >= width) {
        memset(to, 0, layout->rows * width * sizeof *to);
        return;
    }
    memset(to, 0, first * width * sizeof *to);
    memset(to + end * width, 0, (layout->rows - end) * width * sizeof *to);
    int64_t left = shift < 0 ? -shift : 0, right = shift > 0 ? shift : 0; /* columns of zeros */
    const float *from = channel + (first - above) * width;
    memcpy(to + first * width + left, from + left + shift, ((end - first) * width - left - right) * sizeof *to);
    for (int64_t r = first; r < end; r++) {
        for (int64_t x = 0; x < left; x++) to[r * width + x] = 0;
        for (int64_t x = width - right; x < width; x++) to[r * width + x] = 0;
    }
}

/* A plane of any kind, row by row. */
static void lay_rows(const Layout *layout, const float *channel, int64_t top, int64_t phase, int64_t column, float *to) {
    const Window *window = layout->window;
    for (int64_t r = 0; r < layout->rows; r++, to += window->out[1]) {
        int64_t y = (top + r) * window->stride[0] + phase - window->pad[0];
        lay_row(window, y < 0 || y >= window->height ? NULL : channel + y * window->width, column, to);
    }
}

/* Some channels of a band; `planes` are those of all channels. */
static void lay_band(const Layout *layout, const float *x, int64_t top, int64_t channel_from, int64_t channel_to, float *planes) {
    const Window *window = layout->window;
    int64_t channels = window->channels / window->groups, floats = layout->rows * window->out[1];
    int plain = window->stride[0] == 1 && window->stride[1] == 1 && window->out[1] == window->width;
    for (int64_t kx = 0; kx < window->kernel[1]; kx++)
        for (int64_t channel = channel_from; channel < channel_to; channel++)
            for (int64_t phase = 0; phase < layout->phases; phase++) {
                float *to = planes + ((kx * channels + channel) * layout->phases + phase) * floats;
                const float *from = x + channel * window->height * window->width;
                int64_t column = kx * window->dilation[1] - window->pad[1];
                if (plain)
                    lay_plane(layout, from, top, column, to);
                else
                    lay_rows(layout, from, top, phase, column, to);
            }
}

/* What all units of a convolution share. */
typedef struct {
    const Loops *loops;
    Packed *const *packed;
    const Finish *finish;
    const Window *window;
    const float *x, *residual;
    float *y;
    const Threads *threads;
    int64_t band, bands;  /* output rows of a band; bands of an image */
    size_t all;           /* bands of all images and groups */
    size_t parts;         /* in which panels are cut */
    int direct;           /* whether planes of inputs are used as they are */
    Layout layout;        /* of a whole band, and of the last one, too */
    size_t floats;        /* of the planes of a band */
    float *laid;          /* the planes of all bands, where several parts read each; else every unit lays out its own */
    size_t *offsets;      /* of used columns in the planes; [groups, columns] */
    volatile int failed;
} Work;

/* Some rows of the outputs of an image and a group. */
typedef struct {
    int64_t group, top, rows;
    const float *x;
    size_t at; /* where they begin in y */
} Band;

static Band band_at(const Work *work, size_t index) {
    const Window *window = work->window;
    int64_t group = (int64_t)index / work->bands % window->groups, image = (int64_t)index / work->bands / window->groups;
    int64_t inputs = window->channels / window->groups, outputs = window->outputs / window->groups;
    int64_t top = (int64_t)index % work->bands * work->band, left = window->out[0] - top;
    return (Band){
        .group = group,
        .top = top,
        .rows = left < work->band ? left : work->band,
        .x = work->x + (image * window->channels + group * inputs) * window->height * window->width,
        .at = (size_t)(((image * window->outputs + group * outputs) * window->out[0] + top) * window->out[1]),
    };
}

static void lay_unit(void *argument, size_t unit) {
    Work *work = argument;
    int64_t channels = work->window->channels / work->window->groups, chunks = (channels + FEW_CHANNELS - 1) / FEW_CHANNELS;
    int64_t from = (int64_t)unit % chunks * FEW_CHANNELS, to = channels - from < FEW_CHANNELS ? channels : from + FEW_CHANNELS;
    size_t index = unit / (size_t)chunks;
    Band band = band_at(work, index);
    lay_band(&work->layout, band.x, band.top, from, to, work->laid + index * work->floats);
}

static void convolve_unit(void *argument, size_t unit) {
    Work *work = argument;
    const Window *window = work->window;
    size_t part = unit % work->parts, index = unit / work->parts, plane = (size_t)(window->out[0] * window->out[1]);
    Band band = band_at(work, index);
    const Packed *packed = work->packed[band.group];
    size_t from = packed->panels * part / work->parts, to = packed->panels * (part + 1) / work->parts;
    Finish finish = *work->finish;
    if (finish.bias) finish.bias += band.group * (window->outputs / window->groups);

    /* One piece of memory: a tile, and the planes of the band where they are not there yet. */
    size_t floats = work->direct || work->laid ? 0 : work->floats;
    void *memory = borrow(work->threads, LINE + TILE_BYTES + floats * sizeof(float));
    if (!memory) {
        work->failed = 1;
        return;
    }
    float *room = (float *)(((uintptr_t)memory + LINE - 1) / LINE * LINE);
    float *planes = work->laid ? work->laid + index * work->floats : room + TILE_FLOATS;
    if (floats) lay_band(&work->layout, band.x, band.top, 0, window->channels / window->groups, planes);
    Source source = {work->direct ? band.x + band.top * window->width : planes, work->offsets + band.group * packed->columns};
    multiply(work->loops, packed, &finish, &source, from, to, (size_t)(band.rows * window->out[1]), work->y + band.at, plane,
             work->residual ? work->residual + band.at : NULL, room);
    give_back(work->threads, memory);
}

/* Where used columns begin in the planes of each group. */
static void list_used(const Work *work) {
    const Window *window = work->window;
    for (int64_t group = 0; group < window->groups; group++) {
        size_t columns = work->packed[group]->columns, *offsets = work->offsets + group * columns;
        if (work->direct)
            for (size_t c = 0; c < columns; c++) offsets[c] = c * (size_t)(window->height * window->width);
        else
            list_offsets(&work->layout, offsets);
        keep_used(work->packed[group], offsets);
    }
}

/* Cut the work in bands and parts. */
static void cut(Work *work) {
    const Window *window = work->window;
    int64_t inputs = window->channels / window->groups, least = FEW_TILES * TILE_VECTORS * (int64_t)work->loops->lanes;
    double row = 4.0 * (double)(window->kernel[1] * inputs) * (double)window->stride[0] * (double)window->out[1];
    work->band = (int64_t)(BAND_BYTES / row); /* bytes of a row of outputs' inputs: no overflow, however odd the numbers are */
    if (work->direct || work->band * window->out[1] < least) work->band = least / window->out[1] + 1;
    if (work->band > window->out[0]) work->band = window->out[0];
    work->bands = (window->out[0] + work->band - 1) / work->band;
    work->band = (window->out[0] + work->bands - 1) / work->bands; /* of about the same height */
    work->bands = (window->out[0] + work->band - 1) / work->band;
    work->all = (size_t)(window->batch * window->groups * work->bands);
    size_t rows = (size_t)(window->outputs / window->groups), few = work->packed[0]->in_place ? FEW_ROWS : FEW_GATHERED_ROWS;
    work->parts = work->all && work->all < UNITS ? UNITS / work->all : 1;
    if (work->parts > rows / few) work->parts = rows / few ? rows / few : 1;
    work->layout = layout_of(window, work->band);
    work->floats = (size_t)(window->kernel[1] * inputs * work->layout.phases * work->layout.rows * window->out[1]);
}

int convolve(const Loops *loops, Packed *const *packed, const Finish *finish, const Window *window, const float *x,
             const float *residual, float *y, const Threads *threads) {
    Work work = {loops, packed, finish, window, x, residual, y, threads};
    const int64_t *pad = window->pad, *kernel = window->kernel, *stride = window->stride;
    work.direct = kernel[0] == 1 && kernel[1] == 1 && stride[0] == 1 && stride[1] == 1 && !(pad[0] | pad[1] | pad[2] | pad[3]);
    cut(&work);
    int64_t channels = window->channels / window->groups;
    work.offsets = borrow(threads, (size_t)window->groups * packed[0]->columns * sizeof(size_t));
    int lays = work.parts > 1 && !work.direct;
    if (lays) work.laid = borrow(threads, work.all * work.floats * sizeof(float));
    if (work.offsets && (work.laid || !lays)) {
        list_used(&work);
        if (lays) run_units(threads, lay_unit, work.all * (size_t)((channels + FEW_CHANNELS - 1) / FEW_CHANNELS), &work);
        run_units(threads, convolve_unit, work.all * work.parts, &work);
    } else {
        work.failed = 1;
    }
    give_back(threads, work.laid);
    give_back(threads, work.offsets);
    return work.failed ? -1 : 0;
}
