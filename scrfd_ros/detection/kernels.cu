// SPDX-License-Identifier: Apache-2.0
// SCRFD's two steps on the device beside the network: drawing its input, and choosing candidates.
//
// The arithmetic is that of OpenCV's resize, so that the network gets the pixels that letterbox.py
// draws; multiplications and additions must not be fused. Only plain CUDA C, since the tests also
// compile this file for the processor. kernels.ptx is made from it: python test/nvrtc.py

typedef unsigned char Byte;

// One input of the network: a part of an image, and perhaps a second look at it.
struct Input {
    unsigned long long pixels;  // address of the part: blue, green, red, blue, ...
    int pitch;                  // bytes from one row to the next
    int source_width, source_height;
    int width, height;  // on the input, at its top left corner
    int second_x, second_y, second_width, second_height;  // of the second look; 0 for none
    int unused;
};

// The outputs of one stride. Landmarks are 0 if the network finds none.
struct Level {
    unsigned long long scores, boxes, landmarks;
    int anchors;
    int unused;
};

// What both kernels read. As long as the network's inputs keep their shape, nothing else changes,
// so that the launches can be recorded in a CUDA graph.
struct Table {
    float threshold, mean, scale;
    int count;          // of the inputs
    int width, height;  // of each of them
    int anchors;        // of all levels
    int unused;
    Level level[5];
    Input input[1];  // and more
};

// An anchor that scores enough, with the network's own values.
struct Candidate {
    int row;  // number of the input times anchors, plus number of the anchor
    float score;
    float places[14];  // of the box, and of the landmarks
};

struct Candidates {
    int count;
    int unused[15];
    Candidate candidate[1];  // and more, in no order
};

// Two neighbors in a row or column, and the second one's weight in 1/2048.
struct Pair {
    int first, weight;
};

// OpenCV rounds positions to float. Here the quotient is rounded once, with the same result.
static __device__ Pair pair_at(int at, int source, int target) {
    float position = (float)((2 * at + 1) * source - target) / (float)(2 * target);
    float first = floorf(position);
    Pair pair = {(int)first, (int)rintf((position - first) * 2048.f)};
    return pair;
}

static __device__ int within(int value, int length) {
    return value < 0 ? 0 : value < length ? value : length - 1;
}

struct Color {
    float blue, green, red;
};

static __device__ int across(const Byte *left, const Byte *right, int weight) {
    return (2048 - weight) * *left + weight * *right;
}

static __device__ float down(int upper, int lower, int weight) {
    int sum = ((2048 - weight) * (upper >> 4) >> 16) + (weight * (lower >> 4) >> 16);
    return (float)((sum + 2) >> 2);
}

// A pixel of the part, resized: cv2.INTER_LINEAR.
static __device__ Color linear(const Input *input, int x, int y) {
    Pair column = pair_at(x, input->source_width, input->width);
    if (column.first < 0 || column.first >= input->source_width - 1) {
        column.weight = 0;
    }
    Pair row = pair_at(y, input->source_height, input->height);
    const Byte *pixels = (const Byte *)input->pixels;
    long long pitch = input->pitch;
    const Byte *upper = pixels + within(row.first, input->source_height) * pitch;
    const Byte *lower = pixels + within(row.first + 1, input->source_height) * pitch;
    int left = 3 * within(column.first, input->source_width);
    int right = 3 * within(column.first + 1, input->source_width);
    float values[3];
    for (int channel = 0; channel < 3; ++channel) {
        int first = across(upper + left + channel, upper + right + channel, column.weight);
        int second = across(lower + left + channel, lower + right + channel, column.weight);
        values[channel] = down(first, second, row.weight);
    }
    Color color = {values[0], values[1], values[2]};
    return color;
}

// Which pixels of a row or column lie in one of the second look: from begin up to end, the first
// and the last of them in part. Parts are in pixels of the second look times its length.
struct Span {
    int begin, end, first, last;
};

static __device__ Span span_at(int at, int source, int target) {
    Span span;
    int low = at * source, high = low + source;
    span.begin = low / target;
    span.end = (high + target - 1) / target;
    span.first = (span.begin + 1) * target - low;
    span.last = high - (span.end - 1) * target;
    // OpenCV leaves out parts below a thousandth of a pixel.
    if (1000 * span.first <= target) {
        span.first = target;
        ++span.begin;
    }
    if (1000 * span.last <= target) {
        span.last = target;
        --span.end;
    }
    return span;
}

static __device__ float weight_in(Span span, int at, int source, int target) {
    int part = at == span.begin ? span.first : at == span.end - 1 ? span.last : target;
    return (float)part / (float)source;
}

// A pixel of the second look: cv2.INTER_AREA of the pixels that `linear` gives.
static __device__ Color area(const Input *input, int x, int y) {
    Span columns = span_at(x, input->width, input->second_width);
    Span rows = span_at(y, input->height, input->second_height);
    bool whole = input->width % input->second_width == 0 &&
                 input->height % input->second_height == 0;
    Color sum = {0.f, 0.f, 0.f};
    for (int row = rows.begin; row < rows.end; ++row) {
        Color line = {0.f, 0.f, 0.f};
        for (int column = columns.begin; column < columns.end; ++column) {
            Color color = linear(input, column, row);
            float weight =
                whole ? 1.f : weight_in(columns, column, input->width, input->second_width);
            line.blue += color.blue * weight;
            line.green += color.green * weight;
            line.red += color.red * weight;
        }
        float weight = whole ? 1.f : weight_in(rows, row, input->height, input->second_height);
        sum.blue += line.blue * weight;
        sum.green += line.green * weight;
        sum.red += line.red * weight;
    }
    // Whole pixels are added without weights, and divided once.
    int count = (columns.end - columns.begin) * (rows.end - rows.begin);
    float scale = whole ? 1.f / (float)count : 1.f;
    Color color = {rintf(sum.blue * scale), rintf(sum.green * scale), rintf(sum.red * scale)};
    return color;
}

// One thread for each pixel of the inputs, float32 [count, 3, height, width]: red, green, blue.
extern "C" __global__ void draw(const Table *table, float *planes, Candidates *candidates) {
    int x = blockIdx.x * blockDim.x + threadIdx.x;
    int y = blockIdx.y * blockDim.y + threadIdx.y;
    int number = blockIdx.z;
    if (x == 0 && y == 0 && number == 0) {
        candidates->count = 0;
    }
    if (x >= table->width || y >= table->height || number >= table->count) {
        return;
    }
    const Input *input = table->input + number;
    Color color = {0.f, 0.f, 0.f};
    int second_x = x - input->second_x, second_y = y - input->second_y;
    if (x < input->width && y < input->height) {
        color = linear(input, x, y);
    } else if (second_x >= 0 && second_x < input->second_width && second_y >= 0 &&
               second_y < input->second_height) {
        color = area(input, second_x, second_y);
    }
    int plane = table->width * table->height;
    float *to = planes + (long long)number * 3 * plane + y * table->width + x;
    to[0] = (color.red - table->mean) / table->scale;
    to[plane] = (color.green - table->mean) / table->scale;
    to[2 * plane] = (color.blue - table->mean) / table->scale;
}

// One thread for each anchor of each input.
extern "C" __global__ void choose(const Table *table, Candidates *candidates) {
    int row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= table->count * table->anchors) {
        return;
    }
    int number = row / table->anchors;
    int anchor = row - number * table->anchors;
    const Level *level = table->level;
    while (anchor >= level->anchors) {
        anchor -= level->anchors;
        ++level;
    }
    long long at = (long long)number * level->anchors + anchor;
    float score = ((const float *)level->scores)[at];
    if (!(score >= table->threshold)) {  // nor is NaN
        return;
    }
    Candidate *candidate = candidates->candidate + atomicAdd(&candidates->count, 1);
    candidate->row = row;
    candidate->score = score;
    for (int place = 0; place < 4; ++place) {
        candidate->places[place] = ((const float *)level->boxes)[4 * at + place];
    }
    for (int place = 0; place < 10 && level->landmarks; ++place) {
        candidate->places[4 + place] = ((const float *)level->landmarks)[10 * at + place];
    }
}
