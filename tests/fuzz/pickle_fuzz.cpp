// Pickles: the machine ends, and every value it made can be walked; and as the metadata of a distributed checkpoint.
#include "hesspect/core/unpickle.h"

#include "harness.h"
#include "hesspect/core/distributed_checkpoint.h"

using namespace hesspect;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::reads([&] {
    const pickle::Document document = pickle::unpickle(std::as_bytes(std::span(data, size)), "'fuzz.pt'");
    fuzz::require(document.root != nullptr, "a pickle without a value");
    for (const pickle::Value& value : document.values) {
      for (const pickle::Value* item : value.items) fuzz::require(item != nullptr, "a value that holds nothing");
      if (value.kind != pickle::Kind::kTensor) continue;
      fuzz::require(value.items.size() == 1 && value.items[0]->kind == pickle::Kind::kStorage,
                    "a tensor of no storage");
      fuzz::require(value.sizes.size() == value.strides.size(), "a tensor with another number of strides");
    }
  });
  fuzz::reads([&] {
    for (const DistributedTensor& one :
         distributed_metadata(std::as_bytes(std::span(data, size)), "'.metadata'").tensors)
      fuzz::require(!one.path.empty(), "a tensor that no key leads to");
  });
  return 0;
}
