// Sums over rows, and what is made of them: statistics, normalisation, bias gradients. Included after correlate.cu.
//
// Rows are cut into chunks and chunks into lanes by the sizes alone, and are added in that order: the same bits always.

// How values are summed: over `rows` of each of `samples`, one sum a column.
struct Sums {
    int samples, rows, columns;
    int chunk;   // rows of a chunk
    int chunks;
    int width;   // columns of a block, a power of two up to 32
};

// Adds N sums a column: parts[sample][chunk][N][columns]. `term(index, sample, row, column, sums)` adds what one value gives.
// Grid: chunks, tiles of columns, samples.
template <int N, class Term>
__device__ __forceinline__ void sum_columns(const Sums &s, float *__restrict__ parts, Term term) {
    __shared__ float shared[N][THREADS];
    const int column = blockIdx.y * s.width + threadIdx.x % s.width;
    const int lane = threadIdx.x / s.width, lanes = THREADS / s.width;
    const int sample = blockIdx.z;
    const int begin = blockIdx.x * s.chunk, end = min(s.rows, begin + s.chunk);
    float sums[N] = {};
    if (column < s.columns)
        for (int row = begin + lane; row < end; row += lanes)
            term(((size_t)sample * s.rows + row) * s.columns + column, sample, row, column, sums);
    for (int n = 0; n < N; n++) shared[n][threadIdx.x] = sums[n];
    for (int half = lanes / 2; half > 0; half /= 2) {
        __syncthreads();
        if (lane < half)
            for (int n = 0; n < N; n++) shared[n][threadIdx.x] += shared[n][threadIdx.x + half * s.width];
    }
    // Lane 0 of a column is the thread that added its last pair.
    if (lane == 0 && column < s.columns)
        for (int n = 0; n < N; n++)
            parts[(((size_t)sample * s.chunks + blockIdx.x) * N + n) * s.columns + column] = shared[n][threadIdx.x];
}

// totals[sample][n] = sum of parts[sample][chunk][n] over chunks.
GLOBAL void add_chunks(int samples, int chunks, int count, const float *parts, double *totals) {
    const int i = here();
    if (i >= samples * count) return;
    const float *from = parts + (size_t)(i / count) * chunks * count + i % count;
    double sum = 0.0;
    for (int chunk = 0; chunk < chunks; chunk++) sum += from[(size_t)chunk * count];
    totals[i] = sum;
}

// gradient[column] += totals[sample][part][column], summed over samples.
GLOBAL void add_totals(int samples, int parts, int part, int columns, const double *totals, float *gradient) {
    const int column = here();
    if (column >= columns) return;
    double sum = 0.0;
    for (int sample = 0; sample < samples; sample++) sum += totals[(sample * parts + part) * columns + column];
    gradient[column] += (float)sum;
}

// The first of some totals to a place among others.
GLOBAL void put_total(int place, const double *totals, double *all) {
    if (here() == 0) all[place] = totals[0];
}

GLOBAL void scale_totals(int count, float share, const double *totals, float *y) {
    const int i = here();
    if (i < count) y[i] = (float)(totals[i] * share);
}

GLOBAL void column_sums(Sums s, const float *x, float *parts) {
    sum_columns<1>(s, parts, [=](size_t at, int, int, int, float *sums) { sums[0] += x[at]; });
}

GLOBAL void square_sums(Sums s, const float *x, float *parts) {
    sum_columns<1>(s, parts, [=](size_t at, int, int, int, float *sums) { sums[0] += x[at] * x[at]; });
}

GLOBAL void magnitude_sums(Sums s, const float *x, float *parts) {
    sum_columns<2>(s, parts, [=](size_t at, int, int, int, float *sums) {
        sums[0] += fabsf(x[at]);
        sums[1] += x[at] * x[at];
    });
}

// Differences from the first row of the sample, and their squares: large means cost no digits.
GLOBAL void moment_sums(Sums s, const float *x, float *parts) {
    sum_columns<2>(s, parts, [=](size_t at, int sample, int, int column, float *sums) {
        const float difference = x[at] - x[(size_t)sample * s.rows * s.columns + column];
        sums[0] += difference;
        sums[1] += difference * difference;
    });
}

// Mean and biased variance of each channel of each sample from the totals of moment_sums: moments[sample][2][columns].
GLOBAL void moments(Sums s, const float *x, const double *totals, double *moments) {
    const int i = here();
    if (i >= s.samples * s.columns) return;
    const int sample = i / s.columns, column = i % s.columns;
    const double *own = totals + (size_t)sample * 2 * s.columns;
    const double first = own[column] / s.rows, second = own[s.columns + column] / s.rows;
    double *to = moments + (size_t)sample * 2 * s.columns;
    to[column] = x[(size_t)sample * s.rows * s.columns + column] + first;
    to[s.columns + column] = fmax(second - first * first, 0.0);
}

// Mean and inverse deviation that each channel of each sample is normalised by: statistics[sample][2][columns]. `group`
// channels share theirs.
GLOBAL void norm_statistics(Sums s, int group, float epsilon, const double *moments, float *statistics) {
    const int i = here();
    if (i >= s.samples * s.columns) return;
    const int sample = i / s.columns, column = i % s.columns, first = column / group * group;
    const double *own = moments + (size_t)sample * 2 * s.columns;
    double mean = 0.0, variance = 0.0;
    for (int c = first; c < first + group; c++) mean += own[c] / group;
    for (int c = first; c < first + group; c++) {
        const double difference = own[c] - mean;
        variance += (own[s.columns + c] + difference * difference) / group;
    }
    float *to = statistics + (size_t)sample * 2 * s.columns;
    to[column] = (float)mean;
    to[s.columns + column] = (float)(1.0 / sqrt(variance + (double)epsilon));
}

// The same from given means and variances of one sample.
GLOBAL void given_statistics(int columns, float epsilon, const float *mean, const float *variance, float *statistics) {
    const int column = here();
    if (column >= columns) return;
    statistics[column] = mean[column];
    statistics[columns + column] = (float)(1.0 / sqrt((double)variance[column] + (double)epsilon));
}

// A channel's affine: z = x * gain + offset, normalised = (x - mean) * inverse.
struct Affine {
    float gain, offset, mean, inverse;
};

__device__ __forceinline__ Affine affine_of(
    int columns, int sample, int column, const float *statistics, const float *scale, const float *shift
) {
    const float *own = statistics + (size_t)sample * 2 * columns;
    Affine a;
    a.mean = own[column];
    a.inverse = own[columns + column];
    a.gain = scale[column] * a.inverse;
    a.offset = shift[column] - a.mean * a.gain;
    return a;
}

// y = leaky(normalised * scale + shift). Grid: values of a sample, samples.
GLOBAL void norm_apply(
    Sums s, float slope, const float *x, const float *statistics, const float *scale, const float *shift, float *y
) {
    const int i = here(), sample = blockIdx.y, count = s.rows * s.columns;
    if (i >= count) return;
    const Affine a = affine_of(s.columns, sample, i % s.columns, statistics, scale, shift);
    const size_t at = (size_t)sample * count + i;
    y[at] = leaky(fmaf(x[at], a.gain, a.offset), slope);
}

// Sums of the slope of z and of its product with the normalised x.
GLOBAL void norm_slope_sums(
    Sums s, float slope, const float *x, const float *dy, const float *statistics, const float *scale, const float *shift,
    float *parts
) {
    sum_columns<2>(s, parts, [=](size_t at, int sample, int, int column, float *sums) {
        const Affine a = affine_of(s.columns, sample, column, statistics, scale, shift);
        const float dz = fmaf(x[at], a.gain, a.offset) > 0.0f ? dy[at] : dy[at] * slope;
        sums[0] += dz;
        sums[1] += dz * ((x[at] - a.mean) * a.inverse);
    });
}

// Means of both over each group, each channel by its scale, over the deviation: means[sample][2][columns].
GLOBAL void norm_means(
    Sums s, int group, const double *totals, const float *statistics, const float *scale, float *means
) {
    const int i = here();
    if (i >= s.samples * s.columns) return;
    const int sample = i / s.columns, column = i % s.columns, first = column / group * group;
    const double *own = totals + (size_t)sample * 2 * s.columns;
    const double inverse = statistics[(size_t)sample * 2 * s.columns + s.columns + column];
    double direct = 0.0, product = 0.0;
    for (int c = first; c < first + group; c++) {
        direct += own[c] * scale[c];
        product += own[s.columns + c] * scale[c];
    }
    const double share = inverse / ((double)s.rows * group);
    float *to = means + (size_t)sample * 2 * s.columns;
    to[column] = (float)(direct * share);
    to[s.columns + column] = (float)(product * share);
}

// The slope of x from that of y. `means` is null where the statistics were given. Grid: values of a sample, samples.
GLOBAL void norm_data_slope(
    Sums s, float slope, const float *x, const float *dy, const float *statistics, const float *scale, const float *shift,
    const float *means, float *dx
) {
    const int i = here(), sample = blockIdx.y, count = s.rows * s.columns;
    if (i >= count) return;
    const int column = i % s.columns;
    const Affine a = affine_of(s.columns, sample, column, statistics, scale, shift);
    const size_t at = (size_t)sample * count + i;
    const float dz = fmaf(x[at], a.gain, a.offset) > 0.0f ? dy[at] : dy[at] * slope;
    float slope_of_x = a.gain * dz;
    if (means) {
        const float *own = means + (size_t)sample * 2 * s.columns;
        slope_of_x -= own[column] + (x[at] - a.mean) * a.inverse * own[s.columns + column];
    }
    dx[at] = slope_of_x;
}
