// safetensors: what is accepted tiles the data section, tensor by tensor.
#include <cstring>

#include "core/zip_writer.h"
#include "harness.h"
#include "hesspect/core/safetensors.h"
#include "json_mutator.h"

using namespace hesspect;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto path = fuzz::in_memory(fuzz::text_of(data, size));
  fuzz::reads([&] {
    const SafetensorsFile file(path);
    std::size_t bytes = 0;
    unsigned sum = 0;
    for (const SafetensorsEntry& entry : file.entries()) {
      fuzz::require(file.find(entry.name) == &entry, "a tensor that is not found by its name");
      std::size_t numel = entry.bytes > 0 ? 1 : 0;
      for (const std::int64_t length : entry.shape)
        if (entry.bytes > 0) numel *= static_cast<std::size_t>(length);
      fuzz::require(numel * element_size(entry.type) == entry.bytes, "a tensor of another size than its shape says");
      for (std::size_t i = 0; i < entry.bytes; ++i) sum += std::to_integer<unsigned>(entry.data[i]);
      bytes += entry.bytes;
    }
    volatile unsigned seen = sum;
    (void)seen;
    fuzz::require(bytes <= size, "more data than the file has");
  });
  return 0;
}

/// The header's JSON, with its length; or bytes.
extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned seed) {
  std::uint64_t length = 0;
  if (size >= 8) std::memcpy(&length, data, 8);
  if (seed % 4 == 0 || size < 8 || length > size - 8 || max_size < 64) {
    const std::string changed = fuzz::mutate_bytes(std::string(fuzz::text_of(data, size)), max_size);
    std::memcpy(data, changed.data(), changed.size());
    return changed.size();
  }
  const std::string rest(fuzz::text_of(data + 8 + length, size - 8 - length));
  const std::string header = fuzz::mutate_json(std::string(fuzz::text_of(data + 8, length)),
                                               max_size - 8 - std::min(max_size - 8, rest.size()), seed / 4);
  const std::string changed = (test::little_endian(header.size(), 8) + header + rest).substr(0, max_size);
  std::memcpy(data, changed.data(), changed.size());
  return changed.size();
}
