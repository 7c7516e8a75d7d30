// Exported programs: the archive, the graph's JSON and its compilation, and the symbolic arithmetic of what compiles.
// The input is the archive's texts, parted by zeros: graph, configurations of weights and constants, and the bytes of
// every tensor; the archive is made of them here. Ops of LibTorch are not run: its faults are not ours.
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <cstring>
#include <vector>

#include "../../src/model/archive.h"
#include "../../src/model/compile.h"
#include "core/zip_writer.h"
#include "harness.h"
#include "hesspect/model/executor.h"
#include "hesspect/model/program.h"
#include "json_mutator.h"

using namespace hesspect;

namespace {

constexpr std::size_t kParts = 4;
constexpr int kRecords = 8;  // of weights and of constants, all with the same bytes

std::vector<std::string> parts_of(std::string_view input) {
  std::vector<std::string> parts;
  for (std::size_t i = 0; i + 1 < kParts; ++i) {
    const std::size_t end = std::min(input.find('\0'), input.size());
    parts.emplace_back(input.substr(0, end));
    input.remove_prefix(std::min(end + 1, input.size()));
  }
  parts.emplace_back(input);
  return parts;
}

std::string archive_of(const std::vector<std::string>& parts) {
  std::vector<std::pair<std::string, std::string>> files{{"m/archive_format", "pt2"},
                                                         {"m/models/model.json", parts[0]},
                                                         {"m/data/weights/model_weights_config.json", parts[1]},
                                                         {"m/data/constants/model_constants_config.json", parts[2]}};
  for (int i = 0; i < kRecords; ++i) {
    files.emplace_back("m/data/weights/weight_" + std::to_string(i), parts[3]);
    files.emplace_back("m/data/constants/tensor_" + std::to_string(i), parts[3]);
  }
  return test::zip_of(files, false);
}

/// Symbolic instructions whose operands are numbers, in order; ops give nothing.
void run_symbols(const Graph& graph, int levels) {
  Frame frame(static_cast<std::size_t>(graph.slots));
  std::int64_t next = 1;
  for (const int slot : graph.inputs) frame[static_cast<std::size_t>(slot)] = next++;
  for (const Instruction& instruction : graph.instructions) {
    if (instruction.subgraph && levels > 0) run_symbols(*instruction.subgraph, levels - 1);
    if (instruction.kind == Instruction::Kind::kSymbolic) {
      fuzz::reads([&] { execute(instruction, frame, "fuzz: "); });
    } else {
      for (const int output : instruction.outputs)
        if (output >= 0) frame[static_cast<std::size_t>(output)] = std::int64_t{7};
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto path = fuzz::on_disk(archive_of(parts_of(fuzz::text_of(data, size))));
  fuzz::reads([&] {
    const Program program = Program::load(path, {});
    std::int64_t numel = 0;
    for (const ParameterEntry& entry : program.layout().entries()) numel += entry.numel;
    fuzz::require(numel == program.layout().size() && numel > 0, "parameters that don't add up");
  });
  fuzz::reads([&] {
    const Pt2Archive archive(path);
    CompileOptions options;
    options.map_dtype = [](at::ScalarType type) { return type; };
    options.where = "fuzz: ";
    try {
      run_symbols(compile_graph(archive.model().at("graph_module").at("graph"), {}, options), 3);
    } catch (const nlohmann::json::exception&) {  // at() above
    } catch (const c10::Error&) {                 // of a schema's default, which Program::load tells
    }
  });
  return 0;
}

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned seed) {
  std::vector<std::string> parts = parts_of(fuzz::text_of(data, size));
  const std::size_t rest = size - std::min(size, parts[0].size());
  const std::size_t room = max_size > rest ? max_size - rest : 0;
  switch (seed % 8) {
    case 0: parts[1] = fuzz::mutate_json(parts[1], parts[1].size() + max_size - size, seed / 8); break;
    case 1: parts[2] = fuzz::mutate_json(parts[2], parts[2].size() + max_size - size, seed / 8); break;
    case 2: parts[3] = fuzz::mutate_bytes(parts[3], parts[3].size() + max_size - size); break;
    default: parts[0] = fuzz::mutate_json(parts[0], room, seed / 8); break;
  }
  std::string changed = parts[0];
  for (std::size_t i = 1; i < kParts; ++i) changed += '\0' + parts[i];
  changed.resize(std::min(changed.size(), max_size));
  std::memcpy(data, changed.data(), changed.size());
  return changed.size();
}
