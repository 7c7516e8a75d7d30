// ElementType to and from LibTorch's ScalarType. Header-only: `core` itself does not link LibTorch.
#pragma once

#include <c10/core/ScalarType.h>

#include <optional>

#include "hesspect/core/element_type.h"

namespace hesspect {

inline c10::ScalarType to_scalar_type(ElementType type) {
  switch (type) {
    case ElementType::kBool: return c10::ScalarType::Bool;
    case ElementType::kU8: return c10::ScalarType::Byte;
    case ElementType::kI8: return c10::ScalarType::Char;
    case ElementType::kI16: return c10::ScalarType::Short;
    case ElementType::kI32: return c10::ScalarType::Int;
    case ElementType::kI64: return c10::ScalarType::Long;
    case ElementType::kF16: return c10::ScalarType::Half;
    case ElementType::kBF16: return c10::ScalarType::BFloat16;
    case ElementType::kF32: return c10::ScalarType::Float;
    case ElementType::kF64: return c10::ScalarType::Double;
    case ElementType::kC64: return c10::ScalarType::ComplexFloat;
    case ElementType::kC128: return c10::ScalarType::ComplexDouble;
  }
  return c10::ScalarType::Undefined;
}

inline std::optional<ElementType> from_scalar_type(c10::ScalarType type) {
  switch (type) {
    case c10::ScalarType::Bool: return ElementType::kBool;
    case c10::ScalarType::Byte: return ElementType::kU8;
    case c10::ScalarType::Char: return ElementType::kI8;
    case c10::ScalarType::Short: return ElementType::kI16;
    case c10::ScalarType::Int: return ElementType::kI32;
    case c10::ScalarType::Long: return ElementType::kI64;
    case c10::ScalarType::Half: return ElementType::kF16;
    case c10::ScalarType::BFloat16: return ElementType::kBF16;
    case c10::ScalarType::Float: return ElementType::kF32;
    case c10::ScalarType::Double: return ElementType::kF64;
    case c10::ScalarType::ComplexFloat: return ElementType::kC64;
    case c10::ScalarType::ComplexDouble: return ElementType::kC128;
    default: return std::nullopt;
  }
}

}  // namespace hesspect
