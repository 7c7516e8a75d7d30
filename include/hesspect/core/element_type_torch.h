// ElementType to and from LibTorch's ScalarType. Header-only: `core` itself does not link LibTorch.
#pragma once

#include <c10/core/ScalarType.h>

#include <optional>
#include <utility>

#include "hesspect/core/element_type.h"

namespace hesspect {

inline constexpr std::pair<ElementType, c10::ScalarType> kScalarTypes[] = {
    {ElementType::kBool, c10::ScalarType::Bool},        {ElementType::kU8, c10::ScalarType::Byte},
    {ElementType::kI8, c10::ScalarType::Char},          {ElementType::kI16, c10::ScalarType::Short},
    {ElementType::kI32, c10::ScalarType::Int},          {ElementType::kI64, c10::ScalarType::Long},
    {ElementType::kF16, c10::ScalarType::Half},         {ElementType::kBF16, c10::ScalarType::BFloat16},
    {ElementType::kF32, c10::ScalarType::Float},        {ElementType::kF64, c10::ScalarType::Double},
    {ElementType::kC64, c10::ScalarType::ComplexFloat}, {ElementType::kC128, c10::ScalarType::ComplexDouble},
};

inline c10::ScalarType to_scalar_type(ElementType type) {
  for (const auto& [element, scalar] : kScalarTypes)
    if (element == type) return scalar;
  return c10::ScalarType::Undefined;
}

inline std::optional<ElementType> from_scalar_type(c10::ScalarType type) {
  for (const auto& [element, scalar] : kScalarTypes)
    if (scalar == type) return element;
  return std::nullopt;
}

}  // namespace hesspect
