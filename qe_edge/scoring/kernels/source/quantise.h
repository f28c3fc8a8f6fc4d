// Rounding to 8 bits, with one step or one for each token, and the gate of an MLP.
#pragma once
#include "vectors.h"

// The step of a token from its largest magnitudes.
INLINE float step(Floats magnitudes, float floor, float levels) {
    const float found = largest(magnitudes);
    return (found > floor ? found : floor) / levels;
}

// As ONNX's QuantizeLinear: `width` numbers, those of a vector from i on being numbers(i), in the nearest steps, moved by
// the zero point, held within a byte.
template <typename Numbers>
INLINE void quantise(int64_t width, Numbers numbers, float steps_of_one, uint8_t zero, uint8_t* quantised) {
    const auto steps = [&](int64_t i) __attribute__((always_inline)) {
        return whole(smaller(all(512.f), numbers(i) * steps_of_one)) + static_cast<int32_t>(zero);
    };
    constexpr int64_t W = WIDTH;
    int64_t i = 0;
    for (; i + 4 * W <= width; i += 4 * W)
        store_bytes(quantised + i, steps(i), steps(i + W), steps(i + 2 * W), steps(i + 3 * W));
    for (; i < width; i += W) store_bytes(quantised + i, steps(i));
}

// `width` numbers with the step that their largest magnitude gives, which is returned.
INLINE float quantise_token(const float* values, int64_t width, Floats magnitudes, float floor, float levels,
                            uint8_t zero, uint8_t* quantised) {
    const float scale = step(magnitudes, floor, levels);
    quantise(width, [&](int64_t i) __attribute__((always_inline)) { return load(values + i); }, 1.f / scale, zero,
             quantised);
    return scale;
}

// gate * sigmoid(gate) * up
INLINE Floats gated(Floats gate, Floats up) { return gate * up * inverse(1.f + exponential(smaller(-gate, all(80.f)))); }
