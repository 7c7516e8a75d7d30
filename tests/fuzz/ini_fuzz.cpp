// Ini files: what is read is written so that it reads back the same.
#include "../../src/config/ini.h"

#include "harness.h"
#include "hesspect/config/options.h"

using namespace hesspect;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(fuzz::text_of(data, size));
  fuzz::reads([&] {
    for (const IniEntry& entry : parse_ini(text, "fuzz.ini")) {
      if (entry.value.find('\n') != std::string::npos || entry.value.find('\0') != std::string::npos) continue;
      const auto again = parse_ini("key = " + ini_value(entry.value), "again.ini");
      fuzz::require(again.size() == 1 && again[0].value == entry.value, "a value that is written as another");
    }
  });
  if (size % 8 != 0) return 0;  // the tables of all options take as long as a hundred inputs of the parser
  fuzz::reads([&] {
    const std::string written = to_ini(from_ini(text, "fuzz.ini"));
    fuzz::require(to_ini(from_ini(written, "again.ini")) == written, "a configuration that is written as another");
  });
  return 0;
}
