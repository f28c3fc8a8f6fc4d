// AddNormQuantize of a product. Inputs: tokens, scale, zero, weights, notes and scales of a `Product`; residual,
// token_scale, gain, scale and zero as there.
#pragma once
#include "add_norm_quantize.h"
#include "products.h"
#include "scratch.h"

struct LinearAddNormQuantize {
    static constexpr const char* NAME = "LinearAddNormQuantize";
    static constexpr ElementType INPUTS[] = {UINT8,   FLOAT32, UINT8,   INT8,    INT32, FLOAT32,
                                             FLOAT32, FLOAT32, FLOAT32, FLOAT32, UINT8};
    static constexpr ElementType OUTPUTS[] = {FLOAT32, UINT8};

    Unit unit = Unit::NONE;
    float epsilon = 0;

    Status* start(const KernelInfo* info) {
        unit = processor::for_bytes();
        if (unit == Unit::NONE) return refuse("LinearAddNormQuantize: no products of int8 on this processor");
        return api.KernelInfoGetAttribute_float(info, "epsilon", &epsilon);
    }

    void run(Call& call) const {
        Product product(call, unit, 3, call.input(0), call.input(1), call.input(2));
        const Tensor residual = call.input(6), token_scale = call.input(7);
        const Norm norm(call, call.input(8), call.input(9), call.input(10), epsilon);
        call.require(norm.width == product.channels && residual.holds(product.channels, product.tokens) &&
                         token_scale.holds(1, product.tokens),
                     "LinearAddNormQuantize: sizes that do not belong together");
        float* added = call.output<float>(0, residual.sizes, residual.axes);
        uint8_t* quantised = call.output<uint8_t>(1, residual.sizes, residual.axes);
        if (!call.good()) return;
        uint8_t* last = static_cast<uint8_t*>(Scratch::take(MOST_AT_ONCE * product.depth + 4 * product.scratch()));
        if (last == nullptr) return call.fail("LinearAddNormQuantize: failed to allocate memory");
        product.prepare(last + MOST_AT_ONCE * product.depth);
        unit == SPECIAL
            ? add<Special>(product, last, residual.as<float>(), token_scale.as<float>(), added)
            : add<General>(product, last, residual.as<float>(), token_scale.as<float>(), added);
        for (int64_t token = 0; token < product.count; ++token)
            norm.quantise_token(added + token * norm.width, quantised + token * norm.width);
    }

    // added = residual + product * token_scale
    template <typename Multiplier>
    ANY_UNIT __attribute__((noinline)) static void add(const Product& product, uint8_t* last, const float* residual,
                                                       const float* token_scale, float* added) {
        multiply_product<Multiplier>(
            product, last, [&](int64_t token, int64_t channel, Floats products) __attribute__((always_inline)) {
                const int64_t place = token * product.channels + channel;
                store(added + place, load(residual + place) + products * token_scale[token]);
            });
    }
};
