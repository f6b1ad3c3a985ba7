// Functions of each value, products, sums, joins, and pooling over blocks that do not overlap. Included after reduce.cu.

GLOBAL void add_assign(int count, float *sum, const float *x) {
    const int i = here();
    if (i < count) sum[i] += x[i];
}

GLOBAL void scale_assign(int count, float factor, float *x) {
    const int i = here();
    if (i < count) x[i] *= factor;
}

GLOBAL void add(int count, const float *a, const float *b, float *y) {
    const int i = here();
    if (i < count) y[i] = a[i] + b[i];
}

GLOBAL void multiply_values(int count, const float *a, const float *b, float *y) {
    const int i = here();
    if (i < count) y[i] = a[i] * b[i];
}

// The order of the host's enum.
enum Function { RELU, GELU, SIGMOID, TANH };

// Value and slope of the function at x; `below` is the slope of the ReLUs below zero.
__device__ __forceinline__ float2 value_and_slope(int function, float x, float below) {
    if (function == GELU) {
        const float share = 0.5f * (1.0f + erff(x * 0.70710678f));
        return make_float2(x * share, share + x * 0.3989423f * expf(-0.5f * x * x));
    }
    if (function == SIGMOID) {
        const float y = 1.0f / (1.0f + expf(-x));
        return make_float2(y, y * (1.0f - y));
    }
    if (function == TANH) {
        const float y = tanhf(x);
        return make_float2(y, 1.0f - y * y);
    }
    return x > 0.0f ? make_float2(x, 1.0f) : make_float2(x * below, below);
}

// `slopes`: one a channel, or null for `below` everywhere.
GLOBAL void activate(int function, int count, int channels, float below, const float *slopes, const float *x, float *y) {
    const int i = here();
    if (i < count) y[i] = value_and_slope(function, x[i], slopes ? slopes[i % channels] : below).x;
}

GLOBAL void activation_slope(
    int function, int count, int channels, float below, const float *slopes, const float *x, const float *dy, float *dx
) {
    const int i = here();
    if (i < count) dx[i] = dy[i] * value_and_slope(function, x[i], slopes ? slopes[i % channels] : below).y;
}

// What the slopes of a parametric ReLU get.
GLOBAL void prelu_sums(Sums s, const float *x, const float *dy, float *parts) {
    sum_columns<1>(s, parts, [=](size_t at, int, int, int, float *sums) { sums[0] += x[at] > 0.0f ? 0.0f : x[at] * dy[at]; });
}

// The slope of l1 * sum |x| + l2 * sum x^2, times what arrives.
GLOBAL void penalty_slope(int count, float l1, float l2, const float *upstream, const float *x, float *dx) {
    const int i = here();
    if (i >= count) return;
    const float sign = x[i] > 0.0f ? 1.0f : x[i] < 0.0f ? -1.0f : 0.0f;
    dx[i] = upstream[0] * (l1 * sign + 2.0f * l2 * x[i]);
}

GLOBAL void concat(int rows, int first, int second, const float *a, const float *b, float *y) {
    const int i = here(), channels = first + second;
    if (i >= rows * channels) return;
    const int row = i / channels, channel = i % channels;
    y[i] = channel < first ? a[row * first + channel] : b[row * second + channel - first];
}

GLOBAL void split(int rows, int first, int second, const float *y, float *a, float *b) {
    const int i = here(), channels = first + second;
    if (i >= rows * channels) return;
    const int row = i / channels, channel = i % channels;
    if (channel < first)
        a[row * first + channel] = y[i];
    else
        b[row * second + channel - first] = y[i];
}

// Blocks of voxels: `fine` is cut into blocks of `factor`, one for each voxel of `coarse`; a remainder belongs to none.
struct Blocks {
    int samples;
    int fine[3];
    int coarse[3];
    int factor[3];
    int channels;
};

// The row of the first voxel of the block of a coarse row.
__device__ __forceinline__ int first_of_block(const Blocks &b, int row) {
    const int4 p = place_of(b.coarse, row);
    return ((p.w * b.fine[0] + p.z * b.factor[0]) * b.fine[1] + p.y * b.factor[1]) * b.fine[2] + p.x * b.factor[2];
}

__device__ __forceinline__ int row_in_block(const Blocks &b, int tap) {
    const int4 p = place_of(b.factor, tap);
    return (p.z * b.fine[1] + p.y) * b.fine[2] + p.x;
}

// The coarse row of a fine row, or -1 in the remainder; `tap` is the place in the block.
__device__ __forceinline__ int block_of(const Blocks &b, int row, int *tap) {
    const int4 p = place_of(b.fine, row);
    const int z = p.z / b.factor[0], y = p.y / b.factor[1], x = p.x / b.factor[2];
    if (z >= b.coarse[0] || y >= b.coarse[1] || x >= b.coarse[2]) return -1;
    *tap = (p.z % b.factor[0] * b.factor[1] + p.y % b.factor[1]) * b.factor[2] + p.x % b.factor[2];
    return ((p.w * b.coarse[0] + z) * b.coarse[1] + y) * b.coarse[2] + x;
}

// coarse = share * sum of the block.
GLOBAL void gather_blocks(Blocks b, float share, const float *fine, float *coarse) {
    const int i = here(), taps = b.factor[0] * b.factor[1] * b.factor[2];
    if (i >= b.samples * b.coarse[0] * b.coarse[1] * b.coarse[2] * b.channels) return;
    const int first = first_of_block(b, i / b.channels), channel = i % b.channels;
    float sum = 0.0f;
    for (int tap = 0; tap < taps; tap++) sum += fine[(size_t)(first + row_in_block(b, tap)) * b.channels + channel];
    coarse[i] = sum * share;
}

// fine = share * coarse, 0 in the remainder.
GLOBAL void spread_blocks(Blocks b, float share, const float *coarse, float *fine) {
    const int i = here();
    if (i >= b.samples * b.fine[0] * b.fine[1] * b.fine[2] * b.channels) return;
    int tap;
    const int block = block_of(b, i / b.channels, &tap);
    fine[i] = block < 0 ? 0.0f : share * coarse[(size_t)block * b.channels + i % b.channels];
}

// The largest value of each block, and the place of the first that holds it.
GLOBAL void max_pool(Blocks b, const float *fine, float *coarse, u8 *places) {
    const int i = here(), taps = b.factor[0] * b.factor[1] * b.factor[2];
    if (i >= b.samples * b.coarse[0] * b.coarse[1] * b.coarse[2] * b.channels) return;
    const int first = first_of_block(b, i / b.channels), channel = i % b.channels;
    float largest = below_all();
    int place = 0;
    for (int tap = 0; tap < taps; tap++) {
        const float value = fine[(size_t)(first + row_in_block(b, tap)) * b.channels + channel];
        if (value > largest) {
            largest = value;
            place = tap;
        }
    }
    coarse[i] = largest;
    places[i] = (u8)place;
}

GLOBAL void max_pool_slope(Blocks b, const float *dy, const u8 *places, float *dx) {
    const int i = here();
    if (i >= b.samples * b.fine[0] * b.fine[1] * b.fine[2] * b.channels) return;
    int tap;
    const int block = block_of(b, i / b.channels, &tap);
    const size_t at = (size_t)block * b.channels + i % b.channels;
    dx[i] = block >= 0 && places[at] == tap ? dy[at] : 0.0f;
}
