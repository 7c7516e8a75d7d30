#include "inspect.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <limits>
#include <map>
#include <set>

#include "hesspect/core/errors.h"
#include "hesspect/core/hdf5_trial.h"
#include "hesspect/core/mapped_file.h"
#include "hesspect/core/text.h"
#include "hesspect/core/zip_archive.h"
#include "hesspect/data/dataset.h"
#include "hesspect/io/result_file.h"
#include "hesspect/io/series_file.h"
#include "hesspect/model/program.h"
#include "hesspect/model/state_dict.h"
#include "hesspect/report/text.h"
#include "hesspect/series/series_text.h"
#include "hesspect/tangent/tangent_program.h"

namespace hesspect {
namespace {

constexpr std::size_t kLargest = 10;      // parameters listed of a model
constexpr std::size_t kMostListed = 200;  // tensors listed of a state dict or data file

std::string lower_name(at::ScalarType dtype) {
  static const std::map<at::ScalarType, std::string> names = {{at::kFloat, "float32"},
                                                              {at::kDouble, "float64"},
                                                              {at::kHalf, "float16"},
                                                              {at::kBFloat16, "bfloat16"},
                                                              {at::kLong, "int64"},
                                                              {at::kInt, "int32"},
                                                              {at::kShort, "int16"},
                                                              {at::kChar, "int8"},
                                                              {at::kByte, "uint8"},
                                                              {at::kBool, "bool"},
                                                              {at::kComplexFloat, "complex64"},
                                                              {at::kComplexDouble, "complex128"}};
  const auto found = names.find(dtype);
  return found != names.end() ? found->second : c10::toString(dtype);
}

std::string pad(std::string text, std::size_t width) {
  if (text.size() < width) text.resize(width, ' ');
  return text;
}

std::string shape_text(const std::vector<Dimension>& shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    text += i == 0 ? "" : ", ";
    if (shape[i].is_static()) {
      text += std::to_string(shape[i].size);
    } else {
      text += shape[i].symbol + " from " + std::to_string(shape[i].min) +
              (shape[i].max >= 0 ? " to " + std::to_string(shape[i].max) : "");
    }
  }
  return text + "]";
}

struct Row {
  std::string name, dtype, shape, note;
};

std::string table(const std::vector<Row>& rows, std::size_t most) {
  std::size_t name = 0, dtype = 0;
  const std::size_t shown = std::min(rows.size(), most);
  for (std::size_t i = 0; i < shown; ++i) {
    name = std::max(name, rows[i].name.size());
    dtype = std::max(dtype, rows[i].dtype.size());
  }
  std::string text;
  for (std::size_t i = 0; i < shown; ++i) {
    text +=
        "  " + pad(rows[i].name, name) + "  " + pad(rows[i].dtype, dtype) + "  " + rows[i].shape + "  " + rows[i].note;
    text.erase(text.find_last_not_of(' ') + 1);
    text += "\n";
  }
  if (rows.size() > shown)
    text += "  ... and " + format_count(static_cast<std::int64_t>(rows.size() - shown)) + " more\n";
  return text;
}

constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();

/// Of sizes that a file claims: no more than kMost, whatever they are.
std::int64_t product(const std::vector<std::int64_t>& shape) {
  std::int64_t count = 1;
  for (const std::int64_t size : shape) {
    if (size <= 0) return 0;
    count = count > kMost / size ? kMost : count * size;
  }
  return count;
}

/// How tangents and adjoints go through each op, by its name without overload's "torch.ops.".
std::map<std::string, std::string> rules_of(const Program& program) {
  std::map<std::string, std::string> notes;
  const auto& outputs = program.outputs();
  const auto first = std::ranges::find_if(
      outputs, [](const OutputSpec& output) { return output.is_tensor && at::isFloatingType(output.dtype); });
  if (first == outputs.end()) return notes;
  const TangentProgram tangent(program, {static_cast<std::size_t>(first - outputs.begin())});
  for (const RuleCount& rule : tangent.rules()) {
    std::string& note = notes[rule.op];
    note += (note.empty() ? "" : ", ") + std::to_string(rule.count) + (rule.own ? " by own rule" : " by autograd");
  }
  return notes;
}

std::string inspect_program(const std::filesystem::path& path) {
  const Program program = Program::load(path, {});
  const ParameterLayout& layout = program.layout();
  std::string text = "exported program" +
                     (program.torch_version().empty() ? "" : ", by PyTorch " + one_line(program.torch_version())) +
                     "\n";
  std::vector<Row> rows;
  for (const auto& input : program.inputs())
    rows.push_back({one_line(input.name), lower_name(input.dtype), shape_text(input.shape), ""});
  text += "inputs\n" + table(rows, rows.size());
  rows.clear();
  for (const auto& output : program.outputs())
    rows.push_back({std::to_string(rows.size()) + ": " + one_line(output.name),
                    output.is_tensor ? lower_name(output.dtype) : "not a tensor",
                    output.is_tensor ? shape_text(output.shape) : "", ""});
  text += "outputs\n" + table(rows, rows.size());

  std::vector<ParameterEntry> entries = layout.entries();
  std::stable_sort(entries.begin(), entries.end(), [](auto& a, auto& b) { return a.numel > b.numel; });
  rows.clear();
  std::vector<Row> tied;
  for (const auto& e : entries) {
    std::vector<std::int64_t> shape = e.shape;
    if (e.is_complex()) shape.pop_back();  // as the model has it, without the pairs of reals
    rows.push_back({one_line(e.name), lower_name(e.stored_dtype), format_shape(shape), format_count(e.numel)});
    for (const auto& alias : e.aliases) tied.push_back({one_line(alias), "is", one_line(e.name), ""});
  }
  text += format_count(layout.size()) + " parameters in " + format_count(static_cast<std::int64_t>(entries.size())) +
          " tensors, and " + format_bytes(program.buffer_bytes()) + " of buffers and constants; the largest\n" +
          table(rows, kLargest);
  rows.clear();
  const RowMarks marks(program);
  for (const RowTable& looked_up : marks.tables())
    rows.push_back(
        {one_line(looked_up.name), format_count(looked_up.rows) + " rows", "of " + format_count(looked_up.width), ""});
  if (!rows.empty())
    text += "tables that are only looked up: a run leaves out of its vectors what rows its data don't use\n" +
            table(rows, kLargest);
  if (layout.complex_count() > 0)
    text += format_count(layout.complex_count()) + " complex parameters count twice, as real and imaginary parts\n";
  if (!tied.empty()) text += "tied weights, counted once\n" + table(tied, kMostListed);
  if (const auto lacking = program.lacking(); !lacking.empty())
    text += "no data for " + format_count(static_cast<std::int64_t>(lacking.size())) +
            " of these (exported on the meta device or with fake tensors): a run needs --weights" +
            (tied.empty() ? "" : ", which also settle what is tied (above by use and shape)") + "\n";
  rows.clear();
  std::map<std::string, std::string> rules = rules_of(program);
  for (const auto& op : program.op_counts()) {
    const auto rule = rules.find(op.op.starts_with("torch.ops.") ? op.op.substr(10) : op.op);
    rows.push_back({one_line(op.op), std::to_string(op.count), rule == rules.end() ? "" : rule->second, ""});
    if (rule != rules.end()) rules.erase(rule);
  }
  for (const auto& [op, note] : rules) rows.push_back({one_line(op), "", note, ""});  // of several ops each
  text += "operators, and how those that depend on parameters are differentiated\n" + table(rows, kMostListed);
  for (const std::string& warning : program.lost_gradients({}).warnings) text += "warning: " + one_line(warning) + "\n";
  return text;
}

std::string inspect_state_dict(const std::filesystem::path& path) {
  const StateDict state_dict = read_state_dict(path);
  std::vector<Row> rows;
  std::int64_t total = 0;
  for (const auto& t : state_dict.tensors) {
    rows.push_back({one_line(t.name), lower_name(t.dtype), format_shape(t.shape), ""});
    const std::int64_t count = product(t.shape);
    total = total > kMost - count ? kMost : total + count;
  }
  const bool names_itself = state_dict.format.starts_with("PyTorch state dict");
  std::string text = (names_itself ? "" : "state dict, ") + state_dict.format;
  if (!state_dict.key.empty()) text += " under the key " + quote(state_dict.key);
  if (state_dict.files.size() > 1) text += ", " + std::to_string(state_dict.files.size()) + " files";
  text +=
      ": " + format_count(static_cast<std::int64_t>(rows.size())) + " tensors, " + format_count(total) + " entries\n";
  text += table(rows, kMostListed);
  if (!state_dict.skipped.empty()) {
    std::vector<std::string> names;
    for (const auto& name : state_dict.skipped) names.push_back(one_line(name));
    text += "and what is no tensor: " + format_names(names) + "\n";
  }
  return text;
}

std::string inspect_arrays(const std::filesystem::path& path) {
  const auto file = ArrayFile::open(path);
  std::vector<Row> rows;
  std::set<std::int64_t> lengths;
  for (const auto& array : file->arrays()) {
    rows.push_back({one_line(array.name), lower_name(array.dtype), format_shape(array.shape), ""});
    lengths.insert(array.shape.empty() ? -1 : array.shape.front());
  }
  std::string text =
      "data, " + file->format() + ": " + format_count(static_cast<std::int64_t>(rows.size())) + " arrays";
  if (lengths.size() == 1 && *lengths.begin() >= 0) text += " of " + format_count(*lengths.begin()) + " rows";
  return text + "\n" + table(rows, kMostListed);
}

/// safetensors hold weights as well as data: of arrays that all have as many rows, data.
bool looks_like_data(const std::filesystem::path& path) {
  std::set<std::int64_t> lengths;
  const auto file = ArrayFile::open(path);
  for (const auto& array : file->arrays()) lengths.insert(array.shape.empty() ? -1 : array.shape.front());
  return lengths.size() == 1 && *lengths.begin() >= 0;
}

bool is_exported_program(const std::filesystem::path& path) {
  const ZipArchive archive(path);
  return std::any_of(archive.entries().begin(), archive.entries().end(), [&](const ZipEntry& entry) {
    return entry.name == archive.root() + "/archive_format" || entry.name.starts_with(archive.root() + "/models/");
  });
}

}  // namespace

std::string inspect(const std::filesystem::path& path) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) return inspect_state_dict(path);
  check_input_file(path);
  try_hdf5_file(path);
  std::array<char, 16> head{};
  std::ifstream(path, std::ios::binary).read(head.data(), head.size());
  const std::string start(head.data(), head.size());
  const std::string hdf5 = "\x89HDF\r\n\x1a\n";
  if (start.starts_with(hdf5) && is_series(path)) return series_text(path);
  if (start.starts_with(hdf5)) return is_result(path) ? page(read_result(path)) : inspect_arrays(path);
  if (start.starts_with("PK\x03\x04"))
    return is_exported_program(path) ? inspect_program(path) : inspect_state_dict(path);
  if (start[8] == '{') return looks_like_data(path) ? inspect_arrays(path) : inspect_state_dict(path);
  if (start[0] == '{' || start[0] == '\x80') return inspect_state_dict(path);
  throw InputError(quote(path.string()) +
                   " is no exported program (.pt2), state dict, data file (HDF5, safetensors), result or series");
}

}  // namespace hesspect
