// sum = residual + product * token_scale;  quantised = QuantizeLinear(RMSNormalization(sum, gain), scale, zero)
//
// residual, product, sum [..., C] float32; token_scale [..., 1]; gain [C]; scale, zero of one number;
// quantised [..., C] uint8.
#pragma once
#include "kernel.h"
#include "vectors.h"

struct AddNormQuantize {
    static constexpr const char* NAME = "AddNormQuantize";
    static constexpr ElementType INPUTS[] = {FLOAT32, FLOAT32, FLOAT32, FLOAT32, FLOAT32, UINT8};
    static constexpr ElementType OUTPUTS[] = {FLOAT32, UINT8};
    float epsilon = 0;

    Status* start(const KernelInfo* info) { return api.KernelInfoGetAttribute_float(info, "epsilon", &epsilon); }

    void run(Call& call) const {
        const Tensor residual = call.input(0), product = call.input(1), token_scale = call.input(2),
                     gain = call.input(3), scale = call.input(4), zero = call.input(5);
        const int64_t width = gain.count(), tokens = token_scale.count();
        call.require(residual.last() == width && residual.count() == tokens * width &&
                         product.count() == tokens * width && scale.count() == 1 && zero.count() == 1,
                     "AddNormQuantize: sizes that do not belong together");
        call.require(width > 0 && width % CHANNELS == 0, "AddNormQuantize: no multiple of 16 channels");
        float* added = call.output<float>(0, residual.sizes, residual.axes);
        uint8_t* quantised = call.output<uint8_t>(1, residual.sizes, residual.axes);
        if (!call.good()) return;
        const float steps_of_one = 1.f / *scale.as<float>();
        const Floats zeros = all(*zero.as<uint8_t>());
        for (int64_t token = 0; token < tokens; ++token)
            one(residual.as<float>() + token * width, product.as<float>() + token * width,
                token_scale.as<float>()[token], gain.as<float>(), steps_of_one, zeros, width, added + token * width,
                quantised + token * width);
    }

    __attribute__((noinline)) void one(const float* residual, const float* product, float token_scale,
                                       const float* gain, float steps_of_one, Floats zero, int64_t width, float* added,
                                       uint8_t* quantised) const {
        Floats squares = {}, more = {};
        for (int64_t i = 0; i < width; i += WIDTH) {
            const Floats value = load(residual + i) + load(product + i) * token_scale;
            store(added + i, value);
            (i & WIDTH ? more : squares) += value * value;
        }
        const float norm = 1.f / __builtin_sqrtf(sum(squares + more) / static_cast<float>(width) + epsilon);
        for (int64_t i = 0; i < width; i += WIDTH)
            store_quantised(quantised + i, load(added + i) * norm * load(gain + i), steps_of_one, zero);
    }
};
