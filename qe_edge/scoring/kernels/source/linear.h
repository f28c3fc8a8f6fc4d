// MatMulIntegerToFloat. Inputs: tokens, scale, zero, weights, notes and scales of a `Product`; [.., N] float32.
#pragma once
#include "products.h"
#include "scratch.h"

struct Linear {
    static constexpr const char* NAME = "Linear";
    static constexpr ElementType INPUTS[] = {UINT8, FLOAT32, UINT8, INT8, INT32, FLOAT32};
    static constexpr ElementType OUTPUTS[] = {FLOAT32};

    Unit unit = Unit::NONE;

    Status* start(const KernelInfo*) {
        unit = processor::for_bytes();
        return unit == Unit::NONE ? refuse("Linear: no products of int8 on this processor") : nullptr;
    }

    void run(Call& call) const {
        Product product(call, unit, 3, call.input(0), call.input(1), call.input(2));
        if (!call.good()) return;
        int64_t sizes[MOST_AXES];
        for (size_t i = 0; i < product.tokens.axes; ++i) sizes[i] = product.tokens.sizes[i];
        sizes[product.tokens.axes - 1] = product.channels;
        float* results = call.output<float>(0, sizes, product.tokens.axes);
        if (!call.good() || product.count == 0) return;
        uint8_t* last = static_cast<uint8_t*>(Scratch::take(MOST_AT_ONCE * product.depth + 4 * product.scratch()));
        if (last == nullptr) return call.fail("Linear: failed to allocate memory");
        product.prepare(last + MOST_AT_ONCE * product.depth);
        unit == SPECIAL ? one<Special>(product, last, results) : one<General>(product, last, results);
    }

    template <typename Multiplier>
    ANY_UNIT __attribute__((noinline)) static void one(const Product& product, uint8_t* last, float* results) {
        multiply_product<Multiplier>(
            product, last, [&](int64_t token, int64_t channel, Floats products) __attribute__((always_inline)) {
                store(results + token * product.channels + channel, products);
            });
    }
};
