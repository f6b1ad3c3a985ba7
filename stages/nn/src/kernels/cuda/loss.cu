// Losses over channels-last logits; see loss.rs for the formulas and for what the host makes of the sums. Included after
// elementwise.cu.

constexpr int IGNORE = 255;

// The order of the host's enum.
enum Term { NONE, SOFTMAX, SIGMOID_TERM, SQUARE };

struct Loss {
    int rows, classes;
    int term;
    float gamma;
};

// The softmax (or the sigmoids) of a row of logits, and what the voxel adds: voxels[row] = weight * loss, weight, counts.
GLOBAL void loss_rows(
    Loss s, const float *logits, const u8 *labels, const float *weights, float *scores, float *voxels
) {
    const int row = here();
    if (row >= s.rows) return;
    const float *z = logits + (size_t)row * s.classes;
    float *p = scores + (size_t)row * s.classes;
    const int label = labels[row];
    const bool counts = label != IGNORE;
    float loss = 0.0f;
    if (s.term == SIGMOID_TERM) {
        for (int c = 0; c < s.classes; c++) {
            p[c] = 1.0f / (1.0f + expf(-z[c]));
            loss += fmaxf(z[c], 0.0f) - (c == label ? z[c] : 0.0f) + log1pf(expf(-fabsf(z[c])));
        }
        loss /= s.classes;
    } else {
        float largest = below_all(), total = 0.0f;
        for (int c = 0; c < s.classes; c++) largest = fmaxf(largest, z[c]);
        for (int c = 0; c < s.classes; c++) {
            p[c] = expf(z[c] - largest);
            total += p[c];
        }
        for (int c = 0; c < s.classes; c++) p[c] /= total;
        if (s.term == SOFTMAX && counts) {
            loss = largest + logf(total) - z[label];
            if (s.gamma != 0.0f) loss *= powf(1.0f - p[label], s.gamma);
        } else if (s.term == SQUARE) {
            for (int c = 0; c < s.classes; c++) {
                const float difference = p[c] - (c == label ? 1.0f : 0.0f);
                loss += difference * difference;
            }
            loss /= s.classes;
        }
    }
    const float weight = !counts ? 0.0f : s.term == SOFTMAX ? weights[label] : 1.0f;
    voxels[row * 3] = counts ? weight * loss : 0.0f;
    voxels[row * 3 + 1] = weight;
    voxels[row * 3 + 2] = counts ? 1.0f : 0.0f;
}

// Per class: overlap of score and label, score, label.
GLOBAL void region_sums(Sums s, const float *scores, const u8 *labels, float *parts) {
    sum_columns<3>(s, parts, [=](size_t at, int sample, int row, int column, float *sums) {
        const int label = labels[(size_t)sample * s.rows + row];
        if (label == IGNORE) return;
        sums[0] += label == column ? scores[at] : 0.0f;
        sums[1] += scores[at];
        sums[2] += label == column ? 1.0f : 0.0f;
    });
}

// -dl/dp * p of the focal loss at probability p: the slope of the logits is this times p - one-hot.
__device__ __forceinline__ float focal_slope(float p, float gamma) {
    if (gamma == 0.0f) return 1.0f;
    const float rest = fmaxf(1.0f - p, 0.0f);
    const float ratio = rest > 0.0f ? -logf(fmaxf(p, 1.17549435e-38f)) / rest : 1.0f;
    return powf(rest, gamma) * (1.0f + gamma * p * ratio);
}

// Writes the slope of the logits over the scores. `regions`[group][2][classes]: the slope of a probability everywhere, and
// what is taken off at the label; null without a region term. `group_rows` rows make a group.
GLOBAL void loss_slope(
    Loss s, int group_rows, float each, float per_class, const u8 *labels, const float *weights, const float *regions,
    float *scores
) {
    const int row = here();
    if (row >= s.rows) return;
    float *p = scores + (size_t)row * s.classes;
    const int label = labels[row];
    if (label == IGNORE) {
        for (int c = 0; c < s.classes; c++) p[c] = 0.0f;
        return;
    }
    if (s.term == SIGMOID_TERM) {
        for (int c = 0; c < s.classes; c++) p[c] = per_class * (p[c] - (c == label ? 1.0f : 0.0f));
        return;
    }
    const float direct = s.term == SOFTMAX ? each * weights[label] * focal_slope(p[label], s.gamma) : 0.0f;
    const float square = s.term == SQUARE ? 2.0f * per_class : 0.0f;
    const float *everywhere = regions ? regions + (size_t)(row / group_rows) * 2 * s.classes : 0;
    const float *at_label = regions ? everywhere + s.classes : 0;
    auto slope = [&](int c) {
        const float hit = c == label ? 1.0f : 0.0f;
        return (regions ? everywhere[c] - hit * at_label[c] : 0.0f) + square * (p[c] - hit);
    };
    float mean = 0.0f;
    for (int c = 0; c < s.classes; c++) mean += p[c] * slope(c);
    for (int c = 0; c < s.classes; c++) p[c] = direct * (p[c] - (c == label ? 1.0f : 0.0f)) + p[c] * (slope(c) - mean);
}
