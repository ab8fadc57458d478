// What is computed on a CPU without a copy or a pass over memory for each operation: sparse convolutions with their
// kernel maps (sparse/native.py, sparse/native_maps.py), and which points of a scan a picture shows (geometry/pairing.py).
//
// Pairs (source, target) are sorted by kernel offset, and by their rows within an offset; those of offset k are
// starts[k] to starts[k + 1]. Matrices are row by row. Sums are taken in an order that does not depend on the threads.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

#if defined(__AVX512F__)
constexpr int LANES = 16, ROWS = 8, WIDEST = 3;
#elif defined(__AVX__)
constexpr int LANES = 8, ROWS = 6, WIDEST = 2;
#elif defined(__ARM_NEON)
constexpr int LANES = 4, ROWS = 8, WIDEST = 3;
#else
constexpr int LANES = 4, ROWS = 6, WIDEST = 2;
#endif

using Row = int64_t;
typedef float Vector __attribute__((vector_size(LANES * sizeof(float)), aligned(sizeof(float)), may_alias));

static Vector load(const float* from) { return *reinterpret_cast<const Vector*>(from); }
static void store(float* to, Vector values) { *reinterpret_cast<Vector*>(to) = values; }

// out[r][0 .. WIDTH vectors) += in[r] (C values) times the columns of a matrix (C, D), for ROWS rows in registers.
template <int WIDTH>
static void add_products(const float* const* in, float* const* out, const float* matrix, int64_t C, int64_t D) {
    Vector sum[ROWS][WIDTH];
    for (int r = 0; r < ROWS; ++r)
        for (int v = 0; v < WIDTH; ++v) sum[r][v] = load(out[r] + v * LANES);
    for (int64_t c = 0; c < C; ++c, matrix += D) {
        Vector columns[WIDTH];
        for (int v = 0; v < WIDTH; ++v) columns[v] = load(matrix + v * LANES);
        for (int r = 0; r < ROWS; ++r)
            for (int v = 0; v < WIDTH; ++v) sum[r][v] += in[r][c] * columns[v];
    }
    for (int r = 0; r < ROWS; ++r)
        for (int v = 0; v < WIDTH; ++v) store(out[r] + v * LANES, sum[r][v]);
}

// matrix (COUNT rows of D values, WIDTH vectors of each) += sum over n pairs of in[source][0 .. COUNT) * out[target].
template <int WIDTH, int COUNT>
static void add_outer_products(const float* in, const float* out, float* matrix, const Row* source, const Row* target,
                               int64_t n, int64_t C, int64_t D) {
    Vector sum[COUNT][WIDTH];
    for (int r = 0; r < COUNT; ++r)
        for (int v = 0; v < WIDTH; ++v) sum[r][v] = load(matrix + r * D + v * LANES);
    for (int64_t i = 0; i < n; ++i) {
        const float* values = in + source[i] * C;
        Vector gradient[WIDTH];
        for (int v = 0; v < WIDTH; ++v) gradient[v] = load(out + target[i] * D + v * LANES);
        for (int r = 0; r < COUNT; ++r)
            for (int v = 0; v < WIDTH; ++v) sum[r][v] += values[r] * gradient[v];
    }
    for (int r = 0; r < COUNT; ++r)
        for (int v = 0; v < WIDTH; ++v) store(matrix + r * D + v * LANES, sum[r][v]);
}

// How many vectors of columns to take next of those that are left: no single one remains after wider ones.
static int64_t width(int64_t left) { return left == WIDEST + 1 && WIDEST > 2 ? 2 : std::min<int64_t>(left, WIDEST); }

// One offset's products for ROWS pairs.
static void convolve_rows(const float* const* in, float* const* out, const float* matrix, int64_t C, int64_t D) {
    float* at[ROWS];
    std::copy(out, out + ROWS, at);
    const float* const end = matrix + D;
    for (int64_t left; (left = (end - matrix) / LANES) > 0;) {
        const int64_t taken = width(left);
        if (taken >= 3) add_products<WIDEST>(in, at, matrix, C, D);
        else if (taken == 2) add_products<2>(in, at, matrix, C, D);
        else add_products<1>(in, at, matrix, C, D);
        matrix += taken * LANES;
        for (float*& place : at) place += taken * LANES;
    }
    for (int64_t d = 0; d < end - matrix; ++d)
        for (int r = 0; r < ROWS; ++r)
            for (int64_t c = 0; c < C; ++c) at[r][d] += in[r][c] * matrix[c * D + d];
}

// A batch norm with fixed statistics: it scales and shifts each channel. There is none without a weight.
struct Norm {
    const float *weight, *bias, *mean, *variance;
    double eps;

    float root(int64_t d) const { return 1 / std::sqrt(variance[d] + static_cast<float>(eps)); }

    std::vector<float> scales(int64_t D) const {
        std::vector<float> scale(weight ? D : 0);
        for (size_t d = 0; d < scale.size(); ++d) scale[d] = weight[d] * root(d);
        return scale;
    }

    std::vector<float> shifts(const std::vector<float>& scale) const {
        std::vector<float> shift(scale.size());
        for (size_t d = 0; d < scale.size(); ++d) shift[d] = bias[d] - mean[d] * scale[d];
        return shift;
    }
};

// What follows a convolution, on one row: rectified = row * scale + shift + residual, or least where that is less.
static void norm_and_rectify(const float* row, const float* scale, const float* shift, const float* residual,
                             float least, float* rectified, int64_t D) {
    for (int64_t d = 0; d < D; ++d) {
        const float normed = row[d] * scale[d] + shift[d] + (residual ? residual[d] : 0.0f);
        rectified[d] = normed < least ? least : normed;  // what is not a number stays so
    }
}

// outputs (count, D) from inputs (.., C) and weight (K, C, D), in blocks of outputs that stay in the cache, added to what
// is there if `add` is not zero; where there is a norm, also rectified (count, D) of them, none less than `least`, which
// may be the outputs themselves.
extern "C" void convolve(const float* inputs, const float* weight, float* outputs, const Row* sources,
                         const Row* targets, const int64_t* starts, int64_t K, int64_t count, int64_t C, int64_t D,
                         int64_t block, int64_t add, const float* norm_weight, const float* norm_bias,
                         const float* mean, const float* variance, double eps, const float* residual, double least,
                         float* rectified) {
    const int64_t blocks = (count + block - 1) / block;
    const Norm norm{norm_weight, norm_bias, mean, variance, eps};
    const std::vector<float> scale = norm.scales(D), shift = norm.shifts(scale);
#pragma omp parallel
    {
        std::vector<float> nowhere(D);  // where the rows go that fill up the last ROWS of an offset
#pragma omp for schedule(dynamic)
        for (int64_t b = 0; b < blocks; ++b) {
            const Row from = b * block, to = std::min(count, from + block);
            if (!add) std::fill(outputs + from * D, outputs + to * D, 0.0f);
            for (int64_t k = 0; k < K; ++k) {
                const Row* const first = std::lower_bound(targets + starts[k], targets + starts[k + 1], from);
                const Row* const last = std::lower_bound(first, targets + starts[k + 1], to);
                const Row* const source = sources + (first - targets);
                for (int64_t i = 0, n = last - first; i < n; i += ROWS) {
                    const float* in[ROWS];
                    float* out[ROWS];
                    for (int r = 0; r < ROWS; ++r) {
                        in[r] = inputs + source[std::min(i + r, n - 1)] * C;
                        out[r] = i + r < n ? outputs + first[i + r] * D : nowhere.data();
                    }
                    convolve_rows(in, out, weight + k * C * D, C, D);
                }
            }
            for (Row row = from; norm.weight && row < to; ++row)
                norm_and_rectify(outputs + row * D, scale.data(), shift.data(),
                                 residual ? residual + row * D : nullptr, static_cast<float>(least),
                                 rectified + row * D, D);
        }
    }
}

// From the gradient (count, D) of what was rectified: normed (count, D) that of the normed rows, which may be the
// gradient itself, and those (D) of the norm's bias and, if the convolved rows are there, of its weight. Without what was
// rectified nothing has been.
static void norm_relu_gradient(const float* gradient, const float* rectified, const float* rows, const Norm& norm,
                               int64_t count, int64_t D, int64_t block, float* normed, float* of_weight,
                               float* of_bias) {
    const int64_t blocks = (count + block - 1) / block;
    std::vector<float> sums(blocks * 2 * D);  // of each block: the normed rows' gradients, and their products with rows
#pragma omp parallel for schedule(dynamic)
    for (int64_t b = 0; b < blocks; ++b) {
        const Row from = b * block, to = std::min(count, from + block);
        float* const of_block = sums.data() + b * 2 * D;
        int64_t d = 0;
        for (; d + LANES <= D; d += LANES) {
            Vector sum{}, product{};
            for (int64_t at = from * D + d; at < to * D; at += D) {
                Vector inside = load(gradient + at);
                if (rectified) inside = load(rectified + at) <= 0.0f ? Vector{} : inside;
                store(normed + at, inside);
                sum += inside;
                if (rows) product += inside * load(rows + at);
            }
            store(of_block + d, sum);
            store(of_block + D + d, product);
        }
        for (; d < D; ++d)
            for (int64_t at = from * D + d; at < to * D; at += D) {
                normed[at] = rectified && rectified[at] <= 0.0f ? 0.0f : gradient[at];
                of_block[d] += normed[at];
                if (rows) of_block[D + d] += normed[at] * rows[at];
            }
    }
    for (int64_t d = 0; d < D; ++d) {
        float sum = 0, product = 0;
        for (int64_t b = 0; b < blocks; ++b) {
            sum += sums[b * 2 * D + d];
            product += sums[(b * 2 + 1) * D + d];
        }
        of_bias[d] = sum;
        if (rows) of_weight[d] = (product - norm.mean[d] * sum) * norm.root(d);
    }
}

// COUNT rows of one offset's gradient from n pairs.
template <int COUNT>
static void add_weight_gradient(const float* in, const float* out, float* matrix, const Row* source, const Row* target,
                                int64_t n, int64_t C, int64_t D) {
    int64_t d = 0;
    for (int64_t left; (left = (D - d) / LANES) > 0;) {
        const int64_t taken = width(left);
        if (taken >= 3) add_outer_products<WIDEST, COUNT>(in, out + d, matrix + d, source, target, n, C, D);
        else if (taken == 2) add_outer_products<2, COUNT>(in, out + d, matrix + d, source, target, n, C, D);
        else add_outer_products<1, COUNT>(in, out + d, matrix + d, source, target, n, C, D);
        d += taken * LANES;
    }
    if (d == D) return;
    for (int64_t i = 0; i < n; ++i)
        for (int r = 0; r < COUNT; ++r)
            for (int64_t e = d; e < D; ++e) matrix[r * D + e] += in[source[i] * C + r] * out[target[i] * D + e];
}

// gradient (K, C, D) of the weight from inputs (.., C) and the outputs' gradients (.., D), in blocks of pairs.
extern "C" void weight_gradient(const float* inputs, const float* outputs, float* gradient, const Row* sources,
                                const Row* targets, const int64_t* starts, int64_t K, int64_t C, int64_t D,
                                int64_t block) {
#pragma omp parallel for schedule(dynamic)
    for (int64_t k = 0; k < K; ++k) {
        float* const matrix = gradient + k * C * D;
        std::fill(matrix, matrix + C * D, 0.0f);
        for (int64_t i = starts[k]; i < starts[k + 1]; i += block) {
            const int64_t n = std::min(block, starts[k + 1] - i);
            int64_t c = 0;
            for (; c + ROWS <= C; c += ROWS)
                add_weight_gradient<ROWS>(inputs + c, outputs, matrix + c * D, sources + i, targets + i, n, C, D);
            for (; c < C; ++c)
                add_weight_gradient<1>(inputs + c, outputs, matrix + c * D, sources + i, targets + i, n, C, D);
        }
    }
}

// transposed (K, D, C) of matrices (K, C, D), with each column times its scale.
static void transpose(const float* matrices, const std::vector<float>& scale, float* transposed, int64_t K, int64_t C,
                      int64_t D) {
#pragma omp parallel for
    for (int64_t k = 0; k < K; ++k)
        for (int64_t d = 0; d < D; ++d)
            for (int64_t c = 0; c < C; ++c)
                transposed[(k * D + d) * C + c] = matrices[(k * C + c) * D + d] * scale[d];
}

// From the gradient (K, C, D) that a weight would have without the norm: the one with it, in place, and the one (D) of
// the norm's weight, if there is an array for it, which the convolved rows are not needed for: their products with the
// normed rows' gradients add up to those of the weight with its own.
static void scale_weight_gradient(const float* weight, float* gradient, const Norm& norm, int64_t K, int64_t C,
                                  int64_t D, float* of_norm_weight, const float* of_norm_bias) {
    const std::vector<float> scale = norm.scales(D);
    std::vector<float> sums(K * D);
#pragma omp parallel for
    for (int64_t k = 0; k < K; ++k)
        for (int64_t c = 0; c < C; ++c) {
            float* const row = gradient + (k * C + c) * D;
            for (int64_t d = 0; d < D; ++d) {
                sums[k * D + d] += row[d] * weight[(k * C + c) * D + d];
                row[d] *= scale[d];
            }
        }
    for (int64_t d = 0; of_norm_weight && d < D; ++d) {
        float product = 0;
        for (int64_t k = 0; k < K; ++k) product += sums[k * D + d];
        of_norm_weight[d] = (product - norm.mean[d] * of_norm_bias[d]) * norm.root(d);
    }
}

// Memory for what is between two kernels, kept from one call to the next.
static float* scratch(std::vector<float>& memory, int64_t size) {
    if (memory.size() < static_cast<size_t>(size)) memory.resize(size);
    return memory.data();
}

// From the gradient (count, D) of a convolution with norm and ReLU: those of its features, added to what is there if
// `add` is not zero, of its weight, of the norm's weight and bias, and normed (count, D) that of a residual, which may be
// the gradient itself; the first three where there is an array for them. That of the norm's weight needs the convolved
// rows or the weight's. Without what was rectified there has been no ReLU.
extern "C" void convolve_norm_relu_gradients(
    const float* gradient, const float* rectified, const float* rows, const float* features, const float* weight,
    const float* norm_weight, const float* norm_bias, const float* mean, const float* variance, double eps,
    const Row* sources, const Row* targets, const int64_t* starts, int64_t K, int64_t inputs, int64_t count, int64_t C,
    int64_t D, int64_t outputs_block, int64_t pairs_block, int64_t add, float* of_features, float* of_weight,
    float* of_norm_weight, float* of_norm_bias, float* normed) {
    static thread_local std::vector<float> memory;
    const Norm norm{norm_weight, norm_bias, mean, variance, eps};
    norm_relu_gradient(gradient, rectified, rows, norm, count, D, outputs_block, normed, of_norm_weight, of_norm_bias);
    if (of_features) {
        float* const transposed = scratch(memory, K * C * D);
        transpose(weight, norm.scales(D), transposed, K, C, D);
        convolve(normed, transposed, of_features, targets, sources, starts, K, inputs, D, C, outputs_block, add,
                 nullptr, nullptr, nullptr, nullptr, 0, nullptr, 0, nullptr);
    }
    if (of_weight) {
        weight_gradient(features, normed, of_weight, sources, targets, starts, K, C, D, pairs_block);
        scale_weight_gradient(weight, of_weight, norm, K, C, D, rows ? nullptr : of_norm_weight, of_norm_bias);
    }
}

// Where the voxels of a column of the kernel are, for each voxel in turn: found(z, input, output).
template <typename Found>
static void walk_column(const int64_t* keys, int64_t count, int64_t delta, int64_t size, Found found) {
    Row below = 0;
    for (Row output = 0; output < count; ++output) {
        const int64_t lowest = keys[output] + delta;
        while (below < count && keys[below] < lowest) ++below;
        for (Row input = below; input < count && keys[input] < lowest + size; ++input)
            found(keys[input] - lowest, input, output);
    }
}

// counts (columns * size): pairs of the offsets of one half of a submanifold kernel.
extern "C" void count_submanifold(const int64_t* keys, int64_t count, const int64_t* deltas, int64_t columns,
                                  int64_t size, int64_t* counts) {
#pragma omp parallel for schedule(dynamic)
    for (int64_t column = 0; column < columns; ++column) {
        int64_t* const of_column = counts + column * size;
        std::fill(of_column, of_column + size, 0);
        walk_column(keys, count, deltas[column], size, [&](int64_t z, Row, Row) { ++of_column[z]; });
    }
}

// The pairs of these offsets, which begin at starts, and of their mirror images, which begin at mirrored. The first
// column is its own mirror image.
extern "C" void fill_submanifold(const int64_t* keys, int64_t count, const int64_t* deltas, int64_t columns,
                                 int64_t size, const int64_t* starts, const int64_t* mirrored, Row* sources,
                                 Row* targets) {
#pragma omp parallel for schedule(dynamic)
    for (int64_t column = 0; column < columns; ++column) {
        std::vector<int64_t> at(starts + column * size, starts + (column + 1) * size);
        std::vector<int64_t> mirror(mirrored + column * size, mirrored + (column + 1) * size);
        walk_column(keys, count, deltas[column], size, [&](int64_t z, Row input, Row output) {
            sources[at[z]] = input;
            targets[at[z]++] = output;
            if (column == 0) return;
            sources[mirror[z]] = output;
            targets[mirror[z]++] = input;
        });
    }
}

// counts (K): the pairs whose input and output are kept.
extern "C" void count_kept(const Row* sources, const Row* targets, const int64_t* starts, int64_t K,
                           const bool* inputs, const bool* outputs, int64_t* counts) {
#pragma omp parallel for schedule(dynamic)
    for (int64_t k = 0; k < K; ++k) {
        counts[k] = 0;
        for (int64_t i = starts[k]; i < starts[k + 1]; ++i) counts[k] += inputs[sources[i]] & outputs[targets[i]];
    }
}

// These pairs by their new rows, those of offset k from new_starts[k] on.
extern "C" void fill_kept(const Row* sources, const Row* targets, const int64_t* starts, int64_t K,
                          const bool* inputs, const bool* outputs, const Row* input_rank, const Row* output_rank,
                          const int64_t* new_starts, Row* new_sources, Row* new_targets) {
#pragma omp parallel for schedule(dynamic)
    for (int64_t k = 0; k < K; ++k)
        for (int64_t i = starts[k], at = new_starts[k]; i < starts[k + 1]; ++i)
            if (inputs[sources[i]] & outputs[targets[i]]) {
                new_sources[at] = input_rank[sources[i]];
                new_targets[at++] = output_rank[targets[i]];
            }
}

// The distinct ones of keys that are not negative, ascending, and which of them each key is. Returns how many there are.
static int64_t distinct(const std::vector<int64_t>& keys, int64_t* found, Row* inverse) {
    constexpr int BITS = 11, DIGITS = 1 << BITS;
    struct Place { int64_t key; Row row; };
    const int64_t count = keys.size();
    std::vector<Place> places(count), sorted(count);
    int64_t varying = 0;
    for (int64_t i = 0; i < count; ++i) {
        places[i] = {keys[i], i};
        varying |= keys[i] ^ keys[0];
    }
    for (int shift = 0; shift < 63; shift += BITS) {
        if ((varying >> shift & (DIGITS - 1)) == 0) continue;
        std::vector<int64_t> next(DIGITS + 1);
        for (const Place& place : places) ++next[(place.key >> shift & (DIGITS - 1)) + 1];
        std::partial_sum(next.begin(), next.end(), next.begin());
        for (const Place& place : places) sorted[next[place.key >> shift & (DIGITS - 1)]++] = place;
        places.swap(sorted);
    }
    int64_t groups = 0;
    for (int64_t i = 0; i < count; ++i) {
        if (i == 0 || places[i].key != places[i - 1].key) found[groups++] = places[i].key;
        inverse[places[i].row] = groups - 1;
    }
    return groups;
}

// Keys of the voxels that hold points (count, 3), the voxel of each point, and the points in each voxel. Returns how
// many voxels there are. Batch, x, y and z are packed each plus its bias and moved to its place.
extern "C" int64_t occupied_voxels(const float* points, const int64_t* batch, int64_t count, const float* voxel_size,
                                   const int64_t* biases, const int64_t* shifts, int64_t* found, Row* inverse,
                                   int64_t* counts) {
    std::vector<int64_t> keys(count);
    for (int64_t i = 0; i < count; ++i) {
        keys[i] = (batch[i] + biases[0]) << shifts[0];
        for (int axis = 0; axis < 3; ++axis) {
            const int64_t cell = static_cast<int64_t>(std::floor(points[3 * i + axis] / *voxel_size));
            keys[i] |= (cell + biases[axis + 1]) << shifts[axis + 1];
        }
    }
    const int64_t voxels = distinct(keys, found, inverse);
    std::fill(counts, counts + voxels, 0);
    for (int64_t i = 0; i < count; ++i) ++counts[inverse[i]];
    return voxels;
}

// Keys of the voxels of twice the size that hold voxels, and the pairs that connect them, sorted by the place in the
// coarse voxel. Returns how many coarse voxels there are.
extern "C" int64_t downsampling(const int64_t* keys, int64_t count, const int64_t* biases, const int64_t* shifts,
                                int64_t* found, Row* sources, Row* targets, int64_t* counts) {
    std::vector<int64_t> coarse(count);
    std::vector<Row> parent(count);
    std::vector<int> place(count);
    std::fill(counts, counts + 8, 0);
    for (int64_t i = 0; i < count; ++i) {
        coarse[i] = keys[i] >> shifts[0] << shifts[0];
        for (int axis = 1; axis < 4; ++axis) {  // biases are even, and half the range
            const int64_t biased = keys[i] >> shifts[axis] & (2 * biases[axis] - 1);
            coarse[i] |= (biased + biases[axis]) >> 1 << shifts[axis];
            place[i] = 2 * place[i] + (biased & 1);
        }
        ++counts[place[i]];
    }
    const int64_t voxels = distinct(coarse, found, parent.data());
    int64_t at[8];
    std::exclusive_scan(counts, counts + 8, at, int64_t{0});
    for (int64_t i = 0; i < count; ++i) {
        sources[at[place[i]]] = i;
        targets[at[place[i]]++] = parent[i];
    }
    return voxels;
}

// Points (count, 3) that lie before all planes (K, 4), and their rows, ascending. Returns how many there are.
extern "C" int64_t before_planes(const float* points, int64_t count, const float* planes, int64_t K, Row* rows,
                                 float* kept) {
    constexpr int64_t BLOCK = 256;
    int64_t found = 0;
    for (int64_t first = 0; first < count; first += BLOCK) {
        const int64_t size = std::min(BLOCK, count - first), known = found;
        const float* block = points + 3 * first;
        int32_t before[BLOCK];
        std::fill(before, before + size, 1);
        for (const float* plane = planes; plane < planes + 4 * K; plane += 4) {
            const float a = plane[0], b = plane[1], c = plane[2], d = plane[3];
            for (int64_t i = 0; i < size; ++i)
                before[i] &= block[3 * i] * a + block[3 * i + 1] * b + block[3 * i + 2] * c + d > 0;
        }
        for (int64_t i = 0; i < size; ++i) {
            rows[found] = first + i;
            found += before[i];
        }
        for (int64_t i = known; i < found; ++i)
            for (int axis = 0; axis < 3; ++axis) kept[3 * i + axis] = points[3 * rows[i] + axis];
    }
    return found;
}

// out[i]: the least of `size` values that begin at i and are `stride` apart.
static void sliding_least(const float* __restrict__ values, float* __restrict__ out, int64_t count, int64_t size,
                          int64_t stride) {
    std::copy(values, values + count, out);
    for (int64_t shift = stride; shift < size * stride; shift += stride)
        for (int64_t i = 0; i < count; ++i) out[i] = std::min(out[i], values[i + shift]);
}

// hidden (count): whether there is a surface within `reach` cells both above and below a visible point, at pixels (2, count),
// that is nearer than its depth less the share `ratio` and `margin`.
extern "C" void hidden(const float* pixels, const float* depth, const bool* visible, int64_t count, double cell,
                       int64_t columns, int64_t rows, int64_t reach, double margin, double ratio, bool* hidden) {
    static thread_local std::vector<float> nearest, beside, windows;
    static thread_local std::vector<int32_t> places;
    const int64_t width = columns + 2, height = rows + 2 * reach, within = (rows + reach + 1) * width;
    nearest.assign(height * width + 2, std::numeric_limits<float>::infinity());
    beside.resize(height * width);
    windows.resize(within);
    places.resize(count);
    const float edge = cell, near = 1 - ratio, behind = margin;
    for (int64_t i = 0; i < count; ++i) {
        if (!visible[i]) continue;
        const int64_t column = (pixels[i] + 0.5f) / edge, row = (pixels[count + i] + 0.5f) / edge;
        places[i] = std::min(row, rows - 1) * width + std::min(column, columns - 1);
        float& least = nearest[places[i] + reach * width + 1];
        least = std::min(least, depth[i]);
    }
    sliding_least(nearest.data(), beside.data(), height * width, 3, 1);
    sliding_least(beside.data(), windows.data(), within, reach, width);
    for (int64_t i = 0; i < count; ++i) {
        const float* above = visible[i] ? &windows[places[i]] : nullptr;
        hidden[i] = above && depth[i] * near - behind > std::max(*above, above[(reach + 1) * width]);
    }
}
