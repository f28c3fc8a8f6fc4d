// x = gate * sigmoid(gate) * up;  quantised, token_scale: x with a step for each token.
//
// gate, up [..., C] float32; floor, levels: the smallest magnitude and the steps that the largest one gets; zero of one
// number; quantised [..., C] uint8; token_scale [..., 1].
#pragma once
#include "kernel.h"
#include "quantise.h"
#include "scratch.h"

struct SwigluQuantize {
    static constexpr const char* NAME = "SwigluQuantize";
    static constexpr ElementType INPUTS[] = {FLOAT32, FLOAT32, FLOAT32, FLOAT32, UINT8};
    static constexpr ElementType OUTPUTS[] = {UINT8, FLOAT32};

    Status* start(const KernelInfo*) { return nullptr; }

    void run(Call& call) const {
        const Tensor gate = call.input(0), up = call.input(1), floor = call.input(2), levels = call.input(3),
                     zero = call.input(4);
        const int64_t width = gate.last(), tokens = width ? gate.count() / width : 0;
        call.require(up.holds(width, gate) && floor.count() == 1 && levels.count() == 1 && zero.count() == 1,
                     "SwigluQuantize: sizes that do not belong together");
        call.require(width > 0 && width % CHANNELS == 0, "SwigluQuantize: no multiple of 16 channels");
        if (!call.good()) return;
        int64_t sizes[MOST_AXES];
        for (size_t i = 0; i < gate.axes; ++i) sizes[i] = i + 1 < gate.axes ? gate.sizes[i] : 1;
        uint8_t* quantised = call.output<uint8_t>(0, gate.sizes, gate.axes);
        float* scales = call.output<float>(1, sizes, gate.axes);
        if (!call.good()) return;
        float* values = static_cast<float*>(Scratch::take(width * sizeof(float)));
        if (values == nullptr) return call.fail("SwigluQuantize: failed to allocate memory");
        for (int64_t token = 0; token < tokens; ++token)
            scales[token] = one(gate.as<float>() + token * width, up.as<float>() + token * width, width,
                                *floor.as<float>(), *levels.as<float>(), *zero.as<uint8_t>(), values,
                                quantised + token * width);
    }

    __attribute__((noinline)) static float one(const float* gate, const float* up, int64_t width, float floor,
                                               float levels, uint8_t zero, float* values, uint8_t* quantised) {
        Floats magnitudes = {};
        for (int64_t i = 0; i < width; i += WIDTH) {
            const Floats product = gated(load(gate + i), load(up + i));
            store(values + i, product);
            magnitudes = larger(magnitudes, magnitude(product));
        }
        return quantise_token(values, width, magnitudes, floor, levels, zero, quantised);
    }
};
