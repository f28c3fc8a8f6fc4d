// sum = residual + product * token_scale;  quantised = QuantizeLinear(RMSNormalization(sum, gain), scale, zero)
//
// residual, product, sum [..., C] float32; token_scale [..., 1]; gain [C]; scale, zero of one number;
// quantised [..., C] uint8.
#pragma once
#include "kernel.h"
#include "quantise.h"

// A norm of tokens, and its rounding.
struct Norm {
    const float* gain;
    int64_t width;
    float steps_of_one, epsilon;
    uint8_t zero;

    Norm(Call& call, const Tensor& gain, const Tensor& scale, const Tensor& zero, float epsilon)
        : gain(gain.as<float>()), width(gain.count()), epsilon(epsilon) {
        call.require(width > 0 && width % CHANNELS == 0, "norm: no multiple of 16 channels");
        call.require(scale.count() == 1 && zero.count() == 1, "norm: more than one step");
        steps_of_one = call.good() ? 1.f / *scale.as<float>() : 0;
        this->zero = call.good() ? *zero.as<uint8_t>() : 0;
    }

    __attribute__((noinline)) void quantise_token(const float* values, uint8_t* quantised) const {
        Floats squares = {}, more = {};
        for (int64_t i = 0; i < width; i += WIDTH) {
            const Floats value = load(values + i);
            (i & WIDTH ? more : squares) += value * value;
        }
        const float norm = 1.f / __builtin_sqrtf(sum(squares + more) / static_cast<float>(width) + epsilon);
        quantise(
            width, [&](int64_t i) __attribute__((always_inline)) { return load(values + i) * norm * load(gain + i); },
            steps_of_one, zero, quantised);
    }
};

struct AddNormQuantize {
    static constexpr const char* NAME = "AddNormQuantize";
    static constexpr ElementType INPUTS[] = {FLOAT32, FLOAT32, FLOAT32, FLOAT32, FLOAT32, UINT8};
    static constexpr ElementType OUTPUTS[] = {FLOAT32, UINT8};
    float epsilon = 0;

    Status* start(const KernelInfo* info) { return api.KernelInfoGetAttribute_float(info, "epsilon", &epsilon); }

    void run(Call& call) const {
        const Tensor residual = call.input(0), product = call.input(1), token_scale = call.input(2);
        const Norm norm(call, call.input(3), call.input(4), call.input(5), epsilon);
        const int64_t width = norm.width, tokens = token_scale.count();
        call.require(residual.holds(width, residual) && product.holds(width, residual) && token_scale.holds(1, residual),
                     "AddNormQuantize: sizes that do not belong together");
        float* added = call.output<float>(0, residual.sizes, residual.axes);
        uint8_t* quantised = call.output<uint8_t>(1, residual.sizes, residual.axes);
        if (!call.good()) return;
        for (int64_t token = 0; token < tokens; ++token) {
            const int64_t place = token * width;
            add(residual.as<float>() + place, product.as<float>() + place, token_scale.as<float>()[token], width,
                added + place);
            norm.quantise_token(added + place, quantised + place);
        }
    }

    __attribute__((noinline)) static void add(const float* residual, const float* product, float token_scale,
                                              int64_t width, float* added) {
        for (int64_t i = 0; i < width; i += WIDTH)
            store(added + i, load(residual + i) + load(product + i) * token_scale);
    }
};
