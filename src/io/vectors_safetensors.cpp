// The safetensors format (https://github.com/huggingface/safetensors): 8 bytes with the header's length, the header in
// JSON, the tensors one after the other.
#include <array>
#include <bit>
#include <nlohmann/json.hpp>

#include "vectors_layout.h"

namespace hesspect {
namespace {

using nlohmann::ordered_json;

constexpr std::size_t kAlignment = 8;  // of the data in the file

std::string dumped(const ordered_json& json) {
  return json.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

}  // namespace

std::vector<std::int64_t> lay_out_safetensors(TemporaryFile& file, const VectorsInfo& info) {
  ordered_json header;
  header["__metadata__"] = {{"format", "pt"},
                            {"quantity", info.quantity},
                            {"values", dumped(ordered_json(info.values))},  // null for what is not a number
                            {"units", info.units},
                            {"run_id", info.run_id}};
  std::vector<std::int64_t> offsets;
  std::int64_t end = 0;
  for (const auto& part : info.parts) {
    offsets.push_back(end);
    end += bytes_of(part, info);
    header[part.name] = {{"dtype", info.float64 ? "F64" : "F32"},
                         {"shape", shape_of(part, info)},
                         {"data_offsets", {offsets.back(), end}}};
  }
  std::string text = dumped(header);
  text.append((kAlignment - text.size() % kAlignment) % kAlignment, ' ');
  const auto length = std::bit_cast<std::array<std::byte, 8>>(static_cast<std::uint64_t>(text.size()));
  const auto data = static_cast<std::int64_t>(length.size() + text.size());
  file.reserve(data + end);
  file.write(length);
  file.write(std::as_bytes(std::span(text)));
  for (auto& offset : offsets) offset += data;
  return offsets;
}

}  // namespace hesspect
