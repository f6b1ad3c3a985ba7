// Convolutions as products of matrices whose left one is gathered while it is read. Included after common.cu.
//
// Activations are channels-last rows, [samples][z][y][x][channels]. One kernel serves four operations:
//   forward convolution:               source x,  target y,  source voxel = target voxel * stride - padding + tap
//   data gradient of a transposed one: source dy, target dx, the same
//   data gradient of a convolution:    source dy, target dx, target voxel = source voxel * stride - padding + tap
//   forward transposed convolution:    source x,  target y,  the same
// Sums run in an order that sizes alone define, so a result never depends on the device or on timing.

struct Correlation {
    int samples;
    int source[3];  // voxels along z, y, x
    int target[3];
    int kernel[3];
    int stride[3];
    int padding[3];
    int scatters;   // 0: the source voxel follows from the target voxel; 1: the other way round
    int channels;   // of the source
    int columns;    // channels of the target
    // A weight lies at tap / inner * outer_step + tap % inner * inner_step + channel * channel_step + column * column_step.
    int inner, outer_step, inner_step, channel_step, column_step;
    int splits;     // parts of each sum, or of the rows
};

constexpr int DEPTH = 16;     // terms of a sum per round
constexpr int THREADS = 256;

__device__ __forceinline__ int weight_at(const Correlation &s, int tap, int channel, int column) {
    return tap / s.inner * s.outer_step + tap % s.inner * s.inner_step + channel * s.channel_step + column * s.column_step;
}

// Row `row` of a volume of `size`: x, y, z, and the sample in w.
__device__ __forceinline__ int4 place_of(const int size[3], int row) {
    int4 place;
    place.x = row % size[2];
    row /= size[2];
    place.y = row % size[1];
    row /= size[1];
    place.z = row % size[0];
    place.w = row / size[0];
    return place;
}

// Whether a voxel of the source lies under a tap, and where its value of `channel` is.
struct Under {
    bool inside;
    size_t at;
};

__device__ __forceinline__ Under under(const Correlation &s, int4 origin, int4 offset, int channel) {
    const int x = origin.x + offset.x, y = origin.y + offset.y, z = origin.z + offset.z;
    Under found;
    found.inside = origin.w >= 0 && (unsigned)x < (unsigned)s.source[2] && (unsigned)y < (unsigned)s.source[1]
        && (unsigned)z < (unsigned)s.source[0];
    found.at = (size_t)(((origin.w * s.source[0] + z) * s.source[1] + y) * s.source[2] + x) * s.channels + channel;
    return found;
}

__device__ __forceinline__ float4 four(const float *values) {
    return *reinterpret_cast<const float4 *>(values);
}

// Adds the products of a round. Each thread owns ROWS x COLUMNS neighbouring values of the tile.
template <int TILE_ROWS, int TILE_COLUMNS, int ROWS, int COLUMNS>
__device__ __forceinline__ void multiply(
    const float (&left)[DEPTH][TILE_ROWS + 4],
    const float (&right)[DEPTH][TILE_COLUMNS + 4],
    float (&sums)[ROWS][COLUMNS]
) {
    const int row = threadIdx.x / (TILE_COLUMNS / COLUMNS) * ROWS;
    const int column = threadIdx.x % (TILE_COLUMNS / COLUMNS) * COLUMNS;
#pragma unroll
    for (int k = 0; k < DEPTH; k++) {
        float a[ROWS], b[COLUMNS];
#pragma unroll
        for (int i = 0; i < ROWS; i++) a[i] = left[k][row + i];
#pragma unroll
        for (int j = 0; j < COLUMNS; j++) b[j] = right[k][column + j];
#pragma unroll
        for (int i = 0; i < ROWS; i++)
#pragma unroll
            for (int j = 0; j < COLUMNS; j++) sums[i][j] = fmaf(a[i], b[j], sums[i][j]);
    }
}

// Grid: tiles of target rows, tiles of columns, phases times splits. A phase is a set of target voxels under which the same
// taps fall: where the target follows from the source, voxels that are equal modulo the stride; else all of them.
template <int TILE_ROWS, int TILE_COLUMNS, int ROWS, int COLUMNS>
__device__ __forceinline__ void correlate(
    const Correlation &s,
    const float *__restrict__ source,
    const float *__restrict__ weight,
    const float *__restrict__ bias,
    float *__restrict__ target
) {
    static_assert(TILE_ROWS / ROWS * (TILE_COLUMNS / COLUMNS) == THREADS, "each thread owns its part of the tile");
    __shared__ __align__(16) float left[DEPTH][TILE_ROWS + 4];
    __shared__ __align__(16) float right[DEPTH][TILE_COLUMNS + 4];
    __shared__ int4 origins[TILE_ROWS];  // x, y, z under no offset, and the sample or -1
    extern __shared__ int4 taps[];       // offset along x, y, z, and the tap

    const int split = blockIdx.z % s.splits;
    int phase_index = blockIdx.z / s.splits;
    int pitch[3], phase[3], size[3], first[3], count[3], step[3];
    for (int a = 2; a >= 0; a--) {
        pitch[a] = s.scatters ? s.stride[a] : 1;
        phase[a] = phase_index % pitch[a];
        phase_index /= pitch[a];
        size[a] = (s.target[a] - phase[a] + pitch[a] - 1) / pitch[a];
        // The taps that meet a source voxel: every one, or those of the phase's remainder.
        first[a] = s.scatters ? (phase[a] + s.padding[a]) % s.stride[a] : 0;
        step[a] = pitch[a];
        count[a] = first[a] < s.kernel[a] ? (s.kernel[a] - first[a] + step[a] - 1) / step[a] : 0;
    }
    const int rows = s.samples * size[0] * size[1] * size[2];
    const int first_row = blockIdx.x * TILE_ROWS;
    if (first_row >= rows) return;
    const int tap_count = count[0] * count[1] * count[2];

    for (int t = threadIdx.x; t < tap_count; t += THREADS) {
        const int4 index = place_of(count, t);
        const int k[3] = {first[0] + index.z * step[0], first[1] + index.y * step[1], first[2] + index.x * step[2]};
        int offset[3];
        for (int a = 0; a < 3; a++)
            offset[a] = s.scatters ? (phase[a] + s.padding[a] - k[a]) / s.stride[a] : k[a] - s.padding[a];
        taps[t] = make_int4(offset[2], offset[1], offset[0], (k[0] * s.kernel[1] + k[1]) * s.kernel[2] + k[2]);
    }
    for (int r = threadIdx.x; r < TILE_ROWS; r += THREADS) {
        int4 origin = place_of(size, first_row + r);
        if (!s.scatters) {
            origin.x *= s.stride[2];
            origin.y *= s.stride[1];
            origin.z *= s.stride[0];
        }
        if (first_row + r >= rows) origin.w = -1;
        origins[r] = origin;
    }
    __syncthreads();

    const int depth = tap_count * s.channels;
    const int share = (depth + DEPTH - 1) / DEPTH / s.splits + ((depth + DEPTH - 1) / DEPTH % s.splits != 0);
    const int begin = min(depth, split * share * DEPTH), end = min(depth, (split + 1) * share * DEPTH);
    // Four channels are loaded at once where that can be: the address is most of the work.
    const bool wide = s.channels % 4 == 0;
    const bool wide_columns = s.column_step == 1 && s.columns % 4 == 0;
    const bool wide_terms = s.channel_step == 1 && wide;
    const int width = wide ? 4 : 1;
    const int own = threadIdx.x % (DEPTH / width) * width;  // the first term that this thread loads for its rows
    int tap = (begin + own) / s.channels, channel = (begin + own) % s.channels;
    const int first_column = blockIdx.y * TILE_COLUMNS;
    float sums[ROWS][COLUMNS] = {};
    for (int k = begin; k < end; k += DEPTH) {
        const bool live = k + own < end;
        const int4 offset = live ? taps[tap] : make_int4(0, 0, 0, 0);
        if (wide) {
#pragma unroll
            for (int r = threadIdx.x / (DEPTH / 4); r < TILE_ROWS; r += THREADS / (DEPTH / 4)) {
                const Under from = under(s, origins[r], offset, channel);
                const float4 values = live && from.inside ? four(source + from.at) : make_float4(0, 0, 0, 0);
                left[own][r] = values.x;
                left[own + 1][r] = values.y;
                left[own + 2][r] = values.z;
                left[own + 3][r] = values.w;
            }
        } else {
#pragma unroll
            for (int r = threadIdx.x / DEPTH; r < TILE_ROWS; r += THREADS / DEPTH) {
                const Under from = under(s, origins[r], offset, channel);
                left[own][r] = live && from.inside ? source[from.at] : 0.0f;
            }
        }
        if (wide_columns) {
            for (int e = threadIdx.x; e < DEPTH * TILE_COLUMNS / 4; e += THREADS) {
                const int row = e / (TILE_COLUMNS / 4), column = e % (TILE_COLUMNS / 4) * 4, term = k + row;
                const bool there = term < end && first_column + column < s.columns;
                *reinterpret_cast<float4 *>(&right[row][column]) = there
                    ? four(weight + weight_at(s, taps[term / s.channels].w, term % s.channels, first_column + column))
                    : make_float4(0, 0, 0, 0);
            }
        } else if (wide_terms) {
            for (int e = threadIdx.x; e < DEPTH * TILE_COLUMNS / 4; e += THREADS) {
                const int row = e % (DEPTH / 4) * 4, column = e / (DEPTH / 4), term = k + row;
                const bool there = term < end && first_column + column < s.columns;
                const float4 values = there
                    ? four(weight + weight_at(s, taps[term / s.channels].w, term % s.channels, first_column + column))
                    : make_float4(0, 0, 0, 0);
                right[row][column] = values.x;
                right[row + 1][column] = values.y;
                right[row + 2][column] = values.z;
                right[row + 3][column] = values.w;
            }
        } else {
            for (int e = threadIdx.x; e < DEPTH * TILE_COLUMNS; e += THREADS) {
                const int row = e / TILE_COLUMNS, column = e % TILE_COLUMNS, term = k + row;
                const bool there = term < end && first_column + column < s.columns;
                right[row][column] = there
                    ? weight[weight_at(s, taps[term / s.channels].w, term % s.channels, first_column + column)]
                    : 0.0f;
            }
        }
        __syncthreads();
        multiply<TILE_ROWS, TILE_COLUMNS, ROWS, COLUMNS>(left, right, sums);
        __syncthreads();
        channel += DEPTH;
        while (channel >= s.channels) {
            channel -= s.channels;
            tap++;
        }
    }

    const size_t all_rows = (size_t)s.samples * s.target[0] * s.target[1] * s.target[2];
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        const int row = first_row + threadIdx.x / (TILE_COLUMNS / COLUMNS) * ROWS + i;
        if (row >= rows) break;
        const int4 place = place_of(size, row);
        const int z = place.z * pitch[0] + phase[0], y = place.y * pitch[1] + phase[1], x = place.x * pitch[2] + phase[2];
        const size_t to = (((size_t)place.w * s.target[0] + z) * s.target[1] + y) * s.target[2] + x;
#pragma unroll
        for (int j = 0; j < COLUMNS; j++) {
            const int column = first_column + threadIdx.x % (TILE_COLUMNS / COLUMNS) * COLUMNS + j;
            if (column >= s.columns) break;
            const float offset = s.splits == 1 && bias ? bias[column] : 0.0f;
            target[(split * all_rows + to) * s.columns + column] = sums[i][j] + offset;
        }
    }
}

// Products of the gathered source with the target, summed over target rows: parts[split][tap * channels + channel][column].
// Grid: tiles of (tap, channel), tiles of columns, splits. The source voxel follows from the target voxel.
template <int TILE_ROWS, int TILE_COLUMNS, int ROWS, int COLUMNS>
__device__ __forceinline__ void correlate_weight(
    const Correlation &s,
    const float *__restrict__ source,
    const float *__restrict__ target,
    float *__restrict__ parts
) {
    static_assert(THREADS % TILE_ROWS == 0, "a thread loads the same (tap, channel) each time");
    __shared__ __align__(16) float left[DEPTH][TILE_ROWS + 4];
    __shared__ __align__(16) float right[DEPTH][TILE_COLUMNS + 4];
    __shared__ int4 origins[DEPTH];

    const int terms = s.kernel[0] * s.kernel[1] * s.kernel[2] * s.channels;
    const int rows = s.samples * s.target[0] * s.target[1] * s.target[2];
    const int rounds = (rows + DEPTH - 1) / DEPTH;
    const int share = (rounds + s.splits - 1) / s.splits * DEPTH;
    const int begin = min(rows, (int)blockIdx.z * share), end = min(rows, begin + share);
    const int first_term = blockIdx.x * TILE_ROWS, first_column = blockIdx.y * TILE_COLUMNS;
    const bool wide = s.channels % 4 == 0, wide_columns = s.columns % 4 == 0;
    const int width = wide ? 4 : 1;
    const int own = threadIdx.x % (TILE_ROWS / width) * width;  // the first term that this thread loads
    const bool live = first_term + own < terms;
    const int4 tap = place_of(s.kernel, (first_term + own) / s.channels);
    const int channel = (first_term + own) % s.channels;
    float sums[ROWS][COLUMNS] = {};
    for (int k = begin; k < end; k += DEPTH) {
        if (threadIdx.x < DEPTH) {
            int4 origin = place_of(s.target, k + threadIdx.x);
            origin.x = origin.x * s.stride[2] - s.padding[2];
            origin.y = origin.y * s.stride[1] - s.padding[1];
            origin.z = origin.z * s.stride[0] - s.padding[0];
            if (k + threadIdx.x >= end) origin.w = -1;
            origins[threadIdx.x] = origin;
        }
        __syncthreads();
        if (wide) {
#pragma unroll
            for (int r = threadIdx.x / (TILE_ROWS / 4); r < DEPTH; r += THREADS / (TILE_ROWS / 4)) {
                const Under from = under(s, origins[r], tap, channel);
                *reinterpret_cast<float4 *>(&left[r][own]) =
                    live && from.inside ? four(source + from.at) : make_float4(0, 0, 0, 0);
            }
        } else {
#pragma unroll
            for (int r = threadIdx.x / TILE_ROWS; r < DEPTH; r += THREADS / TILE_ROWS) {
                const Under from = under(s, origins[r], tap, channel);
                left[r][own] = live && from.inside ? source[from.at] : 0.0f;
            }
        }
        if (wide_columns) {
            for (int e = threadIdx.x; e < DEPTH * TILE_COLUMNS / 4; e += THREADS) {
                const int row = e / (TILE_COLUMNS / 4), column = e % (TILE_COLUMNS / 4) * 4;
                const bool there = k + row < end && first_column + column < s.columns;
                *reinterpret_cast<float4 *>(&right[row][column]) =
                    there ? four(target + (size_t)(k + row) * s.columns + first_column + column) : make_float4(0, 0, 0, 0);
            }
        } else {
            for (int e = threadIdx.x; e < DEPTH * TILE_COLUMNS; e += THREADS) {
                const int row = e / TILE_COLUMNS, column = e % TILE_COLUMNS;
                const bool there = k + row < end && first_column + column < s.columns;
                right[row][column] = there ? target[(size_t)(k + row) * s.columns + first_column + column] : 0.0f;
            }
        }
        __syncthreads();
        multiply<TILE_ROWS, TILE_COLUMNS, ROWS, COLUMNS>(left, right, sums);
    }
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        const int term = first_term + threadIdx.x / (TILE_COLUMNS / COLUMNS) * ROWS + i;
        if (term >= terms) break;
#pragma unroll
        for (int j = 0; j < COLUMNS; j++) {
            const int column = first_column + threadIdx.x % (TILE_COLUMNS / COLUMNS) * COLUMNS + j;
            if (column >= s.columns) break;
            parts[((size_t)blockIdx.z * terms + term) * s.columns + column] = sums[i][j];
        }
    }
}

// The tile follows the columns, so that few channels fill it: see `tile_rows` and `tile_columns` in the host's code.
#define CORRELATE(COLUMNS, TILE_ROWS, OWN_ROWS, OWN_COLUMNS)                                                              \
    GLOBAL void __launch_bounds__(THREADS) correlate_##COLUMNS(                                                           \
        Correlation s, const float *source, const float *weight, const float *bias, float *target                        \
    ) {                                                                                                                  \
        correlate<TILE_ROWS, COLUMNS, OWN_ROWS, OWN_COLUMNS>(s, source, weight, bias, target);                           \
    }                                                                                                                    \
    GLOBAL void __launch_bounds__(THREADS) correlate_weight_##COLUMNS(                                                    \
        Correlation s, const float *source, const float *target, float *parts                                            \
    ) {                                                                                                                  \
        correlate_weight<TILE_ROWS, COLUMNS, OWN_ROWS, OWN_COLUMNS>(s, source, target, parts);                           \
    }

CORRELATE(8, 256, 4, 2)
CORRELATE(16, 256, 4, 4)
CORRELATE(32, 256, 8, 4)
CORRELATE(64, 128, 8, 4)

// Adds up the parts of a correlation, and the bias.
GLOBAL void join_splits(int count, int splits, int columns, const float *parts, const float *bias, float *target) {
    const int i = here();
    if (i >= count) return;
    float sum = bias ? bias[i % columns] : 0.0f;
    for (int split = 0; split < splits; split++) sum += parts[(size_t)split * count + i];
    target[i] = sum;
}

// Adds the parts of a weight gradient to the gradient, in the layout of the weights.
GLOBAL void add_weight_splits(Correlation s, const float *parts, float *gradient) {
    const int count = s.kernel[0] * s.kernel[1] * s.kernel[2] * s.channels * s.columns;
    const int i = here();
    if (i >= count) return;
    double sum = 0.0;
    for (int split = 0; split < s.splits; split++) sum += parts[(size_t)split * count + i];
    const int term = i / s.columns;
    gradient[weight_at(s, term / s.channels, term % s.channels, i % s.columns)] += (float)sum;
}
