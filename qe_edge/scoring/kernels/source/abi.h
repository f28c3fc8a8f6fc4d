// What of ONNX Runtime's C interface the kernels use: positions of functions in its table, which only grows at its end,
// and the layout of a custom operator. Names as in onnxruntime_c_api.h.
#pragma once
#include <stddef.h>
#include <stdint.h>

struct Status;
struct Value;
struct ShapeInfo;
struct KernelInfo;
struct KernelContext;
struct OpDomain;
struct SessionOptions;

enum : int { STATUS_FAIL = 1, STATUS_INVALID_ARGUMENT = 2 };
enum ElementType : int { FLOAT32 = 1, UINT8 = 2, INT8 = 3, INT32 = 6, BOOL = 9 };

struct ApiBase {
    const void* const* (*GetApi)(uint32_t version);
    const char* (*GetVersionString)();
};

// The functions, found once when the library is registered.
struct Api {
    const void* const* table;

    template <typename Function>
    Function at(size_t position) const {
        return reinterpret_cast<Function>(const_cast<void*>(table[position]));
    }
    Status* CreateStatus(int code, const char* message) const {
        return at<Status* (*)(int, const char*)>(0)(code, message);
    }
    Status* CreateCustomOpDomain(const char* name, OpDomain** out) const {
        return at<Status* (*)(const char*, OpDomain**)>(26)(name, out);
    }
    Status* CustomOpDomain_Add(OpDomain* domain, const struct CustomOp* op) const {
        return at<Status* (*)(OpDomain*, const struct CustomOp*)>(27)(domain, op);
    }
    Status* AddCustomOpDomain(SessionOptions* options, OpDomain* domain) const {
        return at<Status* (*)(SessionOptions*, OpDomain*)>(28)(options, domain);
    }
    Status* GetTensorMutableData(Value* value, void** out) const {
        return at<Status* (*)(Value*, void**)>(51)(value, out);
    }
    Status* GetDimensionsCount(const ShapeInfo* info, size_t* out) const {
        return at<Status* (*)(const ShapeInfo*, size_t*)>(61)(info, out);
    }
    Status* GetDimensions(const ShapeInfo* info, int64_t* sizes, size_t count) const {
        return at<Status* (*)(const ShapeInfo*, int64_t*, size_t)>(62)(info, sizes, count);
    }
    Status* GetTensorTypeAndShape(const Value* value, ShapeInfo** out) const {
        return at<Status* (*)(const Value*, ShapeInfo**)>(65)(value, out);
    }
    Status* KernelInfoGetAttribute_float(const KernelInfo* info, const char* name, float* out) const {
        return at<Status* (*)(const KernelInfo*, const char*, float*)>(85)(info, name, out);
    }
    Status* KernelInfoGetAttribute_int64(const KernelInfo* info, const char* name, int64_t* out) const {
        return at<Status* (*)(const KernelInfo*, const char*, int64_t*)>(86)(info, name, out);
    }
    Status* KernelContext_GetInput(const KernelContext* context, size_t index, const Value** out) const {
        return at<Status* (*)(const KernelContext*, size_t, const Value**)>(90)(context, index, out);
    }
    Status* KernelContext_GetOutput(KernelContext* context, size_t index, const int64_t* sizes, size_t count,
                                    Value** out) const {
        return at<Status* (*)(KernelContext*, size_t, const int64_t*, size_t, Value**)>(91)(context, index, sizes,
                                                                                           count, out);
    }
    void ReleaseTensorTypeAndShapeInfo(ShapeInfo* info) const { at<void (*)(ShapeInfo*)>(99)(info); }
};

// Version 18 of the structure. What is null is not asked for or has a default.
struct CustomOp {
    uint32_t version = 18;
    void* CreateKernel = nullptr;
    const char* (*GetName)(const CustomOp*) = nullptr;
    const char* (*GetExecutionProviderType)(const CustomOp*) = nullptr;
    ElementType (*GetInputType)(const CustomOp*, size_t) = nullptr;
    size_t (*GetInputTypeCount)(const CustomOp*) = nullptr;
    ElementType (*GetOutputType)(const CustomOp*, size_t) = nullptr;
    size_t (*GetOutputTypeCount)(const CustomOp*) = nullptr;
    void* KernelCompute = nullptr;
    void (*KernelDestroy)(void*) = nullptr;
    int (*GetInputCharacteristic)(const CustomOp*, size_t) = nullptr;
    int (*GetOutputCharacteristic)(const CustomOp*, size_t) = nullptr;
    int (*GetInputMemoryType)(const CustomOp*, size_t) = nullptr;
    int (*GetVariadicInputMinArity)(const CustomOp*) = nullptr;
    int (*GetVariadicInputHomogeneity)(const CustomOp*) = nullptr;
    int (*GetVariadicOutputMinArity)(const CustomOp*) = nullptr;
    int (*GetVariadicOutputHomogeneity)(const CustomOp*) = nullptr;
    Status* (*CreateKernelV2)(const CustomOp*, const void* const* api, const KernelInfo*, void** kernel) = nullptr;
    Status* (*KernelComputeV2)(void* kernel, KernelContext*) = nullptr;
    Status* (*InferOutputShapeFn)(const CustomOp*, void*) = nullptr;
    int (*GetStartVersion)(const CustomOp*) = nullptr;
    int (*GetEndVersion)(const CustomOp*) = nullptr;
    size_t (*GetMayInplace)(int** inputs, int** outputs) = nullptr;
    void (*ReleaseMayInplace)(int* inputs, int* outputs) = nullptr;
    size_t (*GetAliasMap)(int** inputs, int** outputs) = nullptr;
    void (*ReleaseAliasMap)(int* inputs, int* outputs) = nullptr;
};
