#include "hesspect/core/element_type.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>

namespace hesspect {
namespace {

struct TypeRow {
  ElementType type;
  std::size_t size;
  std::string_view name;
  std::string_view safetensors;
};

constexpr std::array<TypeRow, 12> kTypes{{
    {ElementType::kBool, 1, "bool", "BOOL"},
    {ElementType::kU8, 1, "uint8", "U8"},
    {ElementType::kI8, 1, "int8", "I8"},
    {ElementType::kI16, 2, "int16", "I16"},
    {ElementType::kI32, 4, "int32", "I32"},
    {ElementType::kI64, 8, "int64", "I64"},
    {ElementType::kF16, 2, "float16", "F16"},
    {ElementType::kBF16, 2, "bfloat16", "BF16"},
    {ElementType::kF32, 4, "float32", "F32"},
    {ElementType::kF64, 8, "float64", "F64"},
    {ElementType::kC64, 8, "complex64", "C64"},
    {ElementType::kC128, 16, "complex128", "C128"},
}};

const TypeRow& row(ElementType type) { return kTypes[static_cast<std::size_t>(type)]; }

// A number is NaN or infinite where all bits of its exponent are set. Whole blocks are tested without a branch, so that
// the compiler can use vector instructions; the bytes are copied first, for files need not be aligned.
template <class Bits>
std::optional<std::int64_t> first_with_exponent(const std::byte* data, std::int64_t count, Bits exponent) {
  constexpr std::int64_t kBlock = 1024;
  std::array<Bits, kBlock> block;
  for (std::int64_t begin = 0; begin < count; begin += kBlock) {
    const std::int64_t size = std::min(kBlock, count - begin);
    std::memcpy(block.data(), data + static_cast<std::size_t>(begin) * sizeof(Bits),
                static_cast<std::size_t>(size) * sizeof(Bits));
    Bits found = 0;
    for (std::int64_t i = 0; i < size; ++i) {
      found = static_cast<Bits>(found | static_cast<Bits>((block[static_cast<std::size_t>(i)] & exponent) == exponent));
    }
    if (found == 0) continue;
    for (std::int64_t i = 0; i < size; ++i) {
      if ((block[static_cast<std::size_t>(i)] & exponent) == exponent) return begin + i;
    }
  }
  return std::nullopt;
}

}  // namespace

std::size_t element_size(ElementType type) { return row(type).size; }

std::string to_string(ElementType type) { return std::string(row(type).name); }

bool is_floating(ElementType type) {
  return type == ElementType::kF16 || type == ElementType::kBF16 || type == ElementType::kF32 ||
         type == ElementType::kF64;
}

bool is_complex(ElementType type) { return type == ElementType::kC64 || type == ElementType::kC128; }

std::optional<ElementType> element_from_safetensors(std::string_view name) {
  for (const TypeRow& candidate : kTypes) {
    if (candidate.safetensors == name) return candidate.type;
  }
  return std::nullopt;
}

std::optional<std::int64_t> first_non_finite(ElementType type, const void* data, std::int64_t count) {
  if (is_complex(type)) {
    const auto part =
        first_non_finite(type == ElementType::kC64 ? ElementType::kF32 : ElementType::kF64, data, 2 * count);
    return part ? std::optional<std::int64_t>(*part / 2) : std::nullopt;
  }
  const auto* bytes = static_cast<const std::byte*>(data);
  switch (type) {
    case ElementType::kF16: return first_with_exponent<std::uint16_t>(bytes, count, 0x7c00);
    case ElementType::kBF16: return first_with_exponent<std::uint16_t>(bytes, count, 0x7f80);
    case ElementType::kF32: return first_with_exponent<std::uint32_t>(bytes, count, 0x7f800000);
    case ElementType::kF64: return first_with_exponent<std::uint64_t>(bytes, count, 0x7ff0000000000000);
    default: return std::nullopt;
  }
}

}  // namespace hesspect
