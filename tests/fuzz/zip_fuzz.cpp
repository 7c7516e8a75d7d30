// Zip archives: every entry that is handed out lies within the file, and is found by its name.
#include "harness.h"
#include "hesspect/core/zip_archive.h"

using namespace hesspect;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto path = fuzz::in_memory(fuzz::text_of(data, size));
  fuzz::reads([&] {
    const ZipArchive archive(path);
    unsigned sum = 0;
    for (const ZipEntry& entry : archive.entries()) {
      fuzz::require(archive.find(entry.name) == &entry, "an entry that is not found by its name");
      if (!entry.data.empty())
        sum += std::to_integer<unsigned>(entry.data.front()) + std::to_integer<unsigned>(entry.data.back());
    }
    volatile unsigned seen = sum;
    (void)seen;
  });
  return 0;
}
