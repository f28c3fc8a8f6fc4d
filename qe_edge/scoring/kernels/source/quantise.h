// A step for each token, and the gate of an MLP.
#pragma once
#include "vectors.h"

// Quantises `width` numbers with the step that their largest magnitude gives, which is returned.
INLINE float quantise_token(const float* values, int64_t width, Floats magnitudes, float floor, float levels,
                            Floats zero, uint8_t* quantised) {
    const float found = largest(magnitudes), scale = (found > floor ? found : floor) / levels;
    const float steps_of_one = 1.f / scale;
    for (int64_t i = 0; i < width; i += WIDTH) store_quantised(quantised + i, load(values + i), steps_of_one, zero);
    return scale;
}

// gate * sigmoid(gate) * up
INLINE Floats gated(Floats gate, Floats up) { return gate * up * inverse(1.f + exponential(smaller(-gate, all(80.f)))); }
