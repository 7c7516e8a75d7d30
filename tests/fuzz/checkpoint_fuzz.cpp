// The states in a run's checkpoint: the input is their JSON, sealed here, for no change of a byte would pass the seal.
// What is read is written so that it reads back the same.
#include "../../src/io/checkpoint_text.h"

#include "../../src/io/checkpoint_pieces.h"
#include "../../src/run/ledger_fields.h"
#include "harness.h"
#include "hesspect/core/sha256.h"
#include "json_mutator.h"

using namespace hesspect;

namespace {

std::string sealed_text(std::string_view json) {
  std::string content(json.substr(0, json.find('\n')));
  content += '\n';
  return content + "\"sha256:" + sha256_bytes(content.data(), content.size()) + "\"\n";
}

LedgerState state_in(const std::filesystem::path& path) {
  return checkpoint::open_sealed(path, checkpoint::kRunKind).as<LedgerState>();
}

void read_run(const std::filesystem::path& path) {
  const auto written = checkpoint::sealed(FieldWriter::text(state_in(path)), checkpoint::kRunKind);
  const auto again = fuzz::in_memory(written, "again");
  fuzz::require(checkpoint::sealed(FieldWriter::text(state_in(again)), checkpoint::kRunKind) == written,
                "a state that is written as another");
}

void read_probe(const std::filesystem::path& path) {
  const ProbeManifest manifest = checkpoint::read_manifest(path);
  fuzz::require(checkpoint::inconsistency(manifest).empty(), "an inconsistent manifest");
  std::set<std::string> verified;
  const std::int64_t end = std::min<std::int64_t>(manifest.n, 16);
  fuzz::reads([&] { (void)checkpoint::read_rows(path.parent_path(), manifest, "basis", 0, 2, 0, end, verified); });
  fuzz::reads(
      [&] { (void)checkpoint::read_rows(path.parent_path(), manifest, "running", 1, 1, end / 2, end, verified); });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto path = fuzz::in_memory(sealed_text(fuzz::text_of(data, size)));
  fuzz::reads([&] { read_run(path); });
  fuzz::reads([&] { read_probe(path); });
  return 0;
}

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned seed) {
  return fuzz::mutate_json_input(data, size, max_size, seed);
}
