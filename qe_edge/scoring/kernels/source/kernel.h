// How a kernel gets at its tensors, and how a class becomes a custom operator.
#pragma once
#include "abi.h"

constexpr size_t MOST_AXES = 4;
constexpr int64_t CHANNELS = 16;  // divide what a kernel takes of them, on every processor
// Every shape comes from a graph that may be a stranger's; products of two sizes stay far from overflow.
constexpr int64_t MOST = 1 << 24;

extern Api api;

inline Status* refuse(const char* reason) { return api.CreateStatus(STATUS_INVALID_ARGUMENT, reason); }

// An input that is not as it should be has no axes.
struct Tensor {
    void* data = nullptr;
    size_t axes = 0;
    int64_t sizes[MOST_AXES] = {};

    template <typename Number>
    Number* as() const { return static_cast<Number*>(data); }
    int64_t count() const {
        int64_t product = 1;
        for (size_t i = 0; i < axes; ++i) product *= sizes[i];
        return product;
    }
    int64_t last() const { return axes ? sizes[axes - 1] : 1; }
    // Whether all sizes but the last one are those of another tensor, and the last one is `width`.
    bool holds(int64_t width, const Tensor& of_tokens) const {
        for (size_t i = 0; i + 1 < axes; ++i)
            if (sizes[i] != of_tokens.sizes[i]) return false;
        return axes > 0 && axes == of_tokens.axes && last() == width;
    }
};

// One call of a kernel. The first thing that goes wrong is kept, and everything after it does nothing.
class Call {
  public:
    explicit Call(KernelContext* context) : context_(context) {}

    Tensor input(size_t index) {
        Tensor tensor;
        const Value* value = nullptr;
        ShapeInfo* info = nullptr;
        if (try_(api.KernelContext_GetInput(context_, index, &value)) && value == nullptr) fail("an input is missing");
        if (!status_) try_(api.GetTensorTypeAndShape(value, &info));
        if (!status_) try_(api.GetDimensionsCount(info, &tensor.axes));
        if (!status_ && tensor.axes > MOST_AXES) fail("an input has too many axes");
        if (!status_) try_(api.GetDimensions(info, tensor.sizes, tensor.axes));
        if (info) api.ReleaseTensorTypeAndShapeInfo(info);
        if (!status_) try_(api.GetTensorMutableData(const_cast<Value*>(value), &tensor.data));
        for (size_t i = 0; !status_ && i < tensor.axes; ++i) require(tensor.sizes[i] <= MOST, "an input is too large");
        return status_ ? Tensor() : tensor;
    }

    template <typename Number>
    Number* output(size_t index, const int64_t* sizes, size_t axes) {
        Value* value = nullptr;
        void* data = nullptr;
        if (!status_) try_(api.KernelContext_GetOutput(context_, index, sizes, axes, &value));
        if (!status_) try_(api.GetTensorMutableData(value, &data));
        return static_cast<Number*>(data);
    }

    void require(bool holds, const char* otherwise) {
        if (!status_ && !holds) fail(otherwise);
    }
    void fail(const char* message) { status_ = refuse(message); }
    bool good() const { return status_ == nullptr; }
    Status* status() const { return status_; }

  private:
    bool try_(Status* status) {
        if (!status_) status_ = status;
        return !status_;
    }
    KernelContext* context_;
    Status* status_ = nullptr;
};

// Operator: NAME, INPUTS and OUTPUTS (types), start(KernelInfo*), run(Call&).
template <typename Operator>
const CustomOp* custom_op() {
    static const CustomOp op = [] {
        CustomOp made;
        made.GetName = [](const CustomOp*) { return Operator::NAME; };
        made.GetExecutionProviderType = [](const CustomOp*) { return "CPUExecutionProvider"; };
        made.GetInputType = [](const CustomOp*, size_t i) { return Operator::INPUTS[i]; };
        made.GetInputTypeCount = [](const CustomOp*) { return sizeof(Operator::INPUTS) / sizeof(ElementType); };
        made.GetOutputType = [](const CustomOp*, size_t i) { return Operator::OUTPUTS[i]; };
        made.GetOutputTypeCount = [](const CustomOp*) { return sizeof(Operator::OUTPUTS) / sizeof(ElementType); };
        made.GetInputCharacteristic = [](const CustomOp*, size_t) { return 0; };
        made.GetOutputCharacteristic = [](const CustomOp*, size_t) { return 0; };
        made.GetInputMemoryType = [](const CustomOp*, size_t) { return 0; };
        made.GetVariadicInputMinArity = made.GetVariadicOutputMinArity = [](const CustomOp*) { return 1; };
        made.GetVariadicInputHomogeneity = made.GetVariadicOutputHomogeneity = [](const CustomOp*) { return 1; };
        made.CreateKernelV2 = [](const CustomOp*, const void* const*, const KernelInfo* info, void** kernel) {
            Operator* one = new (__builtin_malloc(sizeof(Operator))) Operator;
            *kernel = one;
            return one->start(info);
        };
        made.KernelComputeV2 = [](void* kernel, KernelContext* context) {
            Call call(context);
            static_cast<const Operator*>(kernel)->run(call);
            return call.status();
        };
        made.KernelDestroy = [](void* kernel) { __builtin_free(kernel); };
        made.GetStartVersion = [](const CustomOp*) { return 1; };
        made.GetEndVersion = [](const CustomOp*) { return 0x7fffffff; };
        return made;
    }();
    return &op;
}
