// The element types that files (safetensors, HDF5, PyTorch archives) hold, free of LibTorch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace hesspect {

enum class ElementType { kBool, kU8, kI8, kI16, kI32, kI64, kF16, kBF16, kF32, kF64, kC64, kC128 };

/// Bytes of one element.
std::size_t element_size(ElementType type);
/// PyTorch's name: "float32", "bfloat16", "int64", "bool"…
std::string to_string(ElementType type);
/// True for F16, BF16, F32 and F64.
bool is_floating(ElementType type);
/// True for C64 and C128: pairs of F32 or F64.
bool is_complex(ElementType type);
/// From safetensors' name ("F32", "BF16", "I64", "BOOL"…); nothing where hesspect does not read that type.
std::optional<ElementType> element_from_safetensors(std::string_view name);
/// Index of the first NaN or infinity among `count` elements; nothing where all are finite or the type has none.
/// @param data  [count], need not be aligned
std::optional<std::int64_t> first_non_finite(ElementType type, const void* data, std::int64_t count);

}  // namespace hesspect
