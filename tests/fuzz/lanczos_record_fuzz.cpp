// The scalars of a Lanczos run in a checkpoint: what is read is written as the same bytes.
#include "harness.h"
#include "hesspect/krylov/lanczos.h"

using namespace hesspect;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string bytes = "LANCZOS2" + std::string(fuzz::text_of(data, size));
  fuzz::reads([&] {
    LanczosRecord record = lanczos_record_from(bytes);
    const std::string written = to_bytes(record);
    fuzz::require(to_bytes(lanczos_record_from(written)) == written, "a record that is written as another");
  });
  return 0;
}
