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
        uint8_t* last = static_cast<uint8_t*>(Scratch::take(TOKENS * product.depth + 4 * product.scratch()));
        if (last == nullptr) return call.fail("Linear: failed to allocate memory");
        product.prepare(last + TOKENS * product.depth);
        const TokenTiles tiles(product.tokens.as<uint8_t>(), product.count, product.depth, last);
        unit == SPECIAL ? one<Special>(product, tiles, results) : one<General>(product, tiles, results);
    }

    template <typename Multiplier>
    ANY_UNIT __attribute__((noinline)) static void one(const Product& product, const TokenTiles& tiles, float* results) {
        multiply_all<Multiplier>(
            tiles, product.channels, 2 * BLOCK, [&](int64_t channel) { return product.block(channel); },
            [&](int64_t channel) { return product.block(channel + BLOCK); },
            [&](const Meeting& met, int64_t row) __attribute__((always_inline)) {
                for (int64_t part = 0; part < 4; ++part) {
                    const int64_t channel = met.channel + part * WIDTH;
                    store(results + (met.token + row) * product.channels + channel,
                          product.to_float(channel, met.sums[part / 2][part % 2][row]));
                }
            });
    }
};
