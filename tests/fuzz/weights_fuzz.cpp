// State dicts: every tensor that is handed out lies within its file. The first byte says what the rest is: a whole
// file, the pickle of a torch.save archive, or the index of a sharded state dict.
#include <ATen/ATen.h>

#include <cstring>

#include "core/zip_writer.h"
#include "harness.h"
#include "hesspect/model/state_dict.h"
#include "json_mutator.h"

using namespace hesspect;

namespace {

constexpr unsigned char kPickle = 1, kIndex = 2;
constexpr std::size_t kStorageBytes = 96;

std::string shard() {
  const std::string header =
      R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"I64","shape":[],"data_offsets":[8,16]}})";
  return test::little_endian(header.size(), 8) + header + std::string(16, '\1');
}

std::string saved(std::string_view pickle) {
  std::vector<std::pair<std::string, std::string>> files{{"archive/data.pkl", std::string(pickle)},
                                                         {"archive/byteorder", "little"}};
  for (int i = 0; i < 6; ++i) files.emplace_back("archive/data/" + std::to_string(i), std::string(kStorageBytes, '\1'));
  return test::zip_of(files, false);
}

/// Reads the element of the lowest and of the highest address.
void touch(const at::Tensor& tensor) {
  if (!tensor.defined() || tensor.numel() == 0) return;
  std::int64_t last = 0;
  for (std::int64_t d = 0; d < tensor.dim(); ++d) last += (tensor.size(d) - 1) * tensor.stride(d);
  const auto* bytes = static_cast<const unsigned char*>(tensor.const_data_ptr());
  volatile unsigned char seen = bytes[0];
  for (std::int64_t i = 0; i < tensor.element_size(); ++i) seen = bytes[last * tensor.element_size() + i];
  (void)seen;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view rest = fuzz::text_of(data + 1, size - 1);
  if (data[0] == kIndex) fuzz::on_disk(shard(), "shard.safetensors");
  const auto path = data[0] == kPickle ? fuzz::on_disk(saved(rest)) : fuzz::on_disk(rest);
  fuzz::reads([&] {
    const StateDict state_dict = read_state_dict(path);
    for (const StateDictTensor& tensor : state_dict.tensors) {
      fuzz::require(tensor.tensor.sizes() == at::IntArrayRef(tensor.shape), "a tensor of another shape than it says");
      touch(tensor.tensor);
    }
  });
  return 0;
}

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned seed) {
  const std::string input(fuzz::text_of(data, size));
  const bool as_json = size > 0 && data[0] == kIndex && seed % 8 != 0;
  const std::string changed = as_json ? input[0] + fuzz::mutate_json(input.substr(1), max_size - 1, seed / 8)
                                      : fuzz::mutate_bytes(input, max_size);
  std::memcpy(data, changed.data(), changed.size());
  return changed.size();
}
