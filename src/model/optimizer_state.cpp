#include "hesspect/model/optimizer_state.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <map>
#include <set>

#include "hesspect/core/errors.h"
#include "hesspect/core/mapped_file.h"
#include "hesspect/core/text.h"
#include "torch_archive.h"

namespace hesspect {
namespace {

namespace pkl = pickle;
using PickleValue = pickle::Value;

bool is_state(const PickleValue& value) {
  return has_items(value) && item_of(value, "state") != nullptr && item_of(value, "param_groups") != nullptr;
}

/// The optimiser's state among what else a checkpoint holds: at the top, under one of its keys, or the only one in a
/// list under one.
const PickleValue& find_state(const PickleValue& root, const std::string& file) {
  if (is_state(root)) return root;
  std::vector<std::pair<std::string, const PickleValue*>> found;
  for (std::size_t i = 0; has_items(root) && i + 1 < root.items.size(); i += 2) {
    const std::string key = key_name(*root.items[i]);
    const PickleValue& value = *root.items[i + 1];
    if (is_state(value)) found.emplace_back(key, &value);
    if (value.kind != pkl::Kind::kList && value.kind != pkl::Kind::kTuple) continue;
    for (std::size_t j = 0; j < value.items.size(); ++j)
      if (is_state(*value.items[j])) found.emplace_back(key + "[" + std::to_string(j) + "]", value.items[j]);
  }
  std::vector<std::string> names;
  for (const auto& [name, value] : found) names.push_back(name);
  if (found.size() > 1)
    throw InputError(file + " holds several optimisers' states, " + format_names(names) +
                     ": save one of them, torch.save(optimizer.state_dict(), FILE)");
  if (found.empty()) {
    const std::vector<std::string> keys = keys_of(root);
    throw InputError(file + " holds no optimiser's state (a dict of 'state' and 'param_groups')" +
                     (keys.empty() ? "" : "; it has " + format_names(keys)) +
                     ": save torch.save(optimizer.state_dict(), FILE)");
  }
  return *found.front().second;
}

double number_of(const PickleValue* value) {
  if (value == nullptr) return SecondMoment::kUnknown;
  if (value->kind == pkl::Kind::kFloat) return value->real;
  if (value->kind == pkl::Kind::kInt) return static_cast<double>(value->number);
  return SecondMoment::kUnknown;
}

class Reader {
 public:
  Reader(const PickleValue& state, TensorArchive& archive, const std::string& file, OptimizerState& result)
      : groups_(*item_of(state, "param_groups")),
        states_(*item_of(state, "state")),
        archive_(archive),
        file_(file),
        result_(result) {}

  void read() {
    const bool whole = groups_.kind == pkl::Kind::kList && has_shape(states_);
    if (!whole) throw InputError(file_ + ": 'param_groups' is no list, or 'state' no dict: it is broken");
    for (std::size_t i = 0; i + 1 < states_.items.size(); i += 2)
      by_key_[key_name(*states_.items[i])] = states_.items[i + 1];
    result_.groups = std::ssize(groups_.items);
    result_.named = true;
    for (const PickleValue* group : groups_.items) read_group(*group);
    if (seen_.empty()) throw InputError(file_ + ": the optimiser has taken no step yet: its state is empty");
    if (has_largest_ && has_usual_)
      throw InputError(file_ + ": some of its parameter groups are amsgrad's and others are not: it is of no use here");
    result_.largest = has_largest_;
  }

 private:
  static bool has_shape(const PickleValue& value) {
    return value.kind == pkl::Kind::kDict || value.kind == pkl::Kind::kObject;
  }

  void read_group(const PickleValue& group) {
    const PickleValue* params = has_items(group) ? item_of(group, "params") : nullptr;
    if (params == nullptr || (params->kind != pkl::Kind::kList && params->kind != pkl::Kind::kTuple))
      throw InputError(file_ + ": a parameter group has no list 'params': it is broken");
    const PickleValue* names = item_of(group, "param_names");
    const bool has_names = names != nullptr && names->items.size() == params->items.size();
    SecondMoment of_group;
    of_group.eps = number_of(item_of(group, "eps"));
    if (const PickleValue* betas = item_of(group, "betas"); betas != nullptr && betas->items.size() == 2) {
      of_group.beta1 = number_of(betas->items[0]);
      of_group.beta2 = number_of(betas->items[1]);
    }
    for (std::size_t i = 0; i < params->items.size(); ++i) {
      const PickleValue& key = *params->items[i];
      SecondMoment moment = of_group;
      moment.place = std::ssize(result_.moments);
      if (key.kind == pkl::Kind::kText) moment.name = key.text;
      if (has_names && names->items[i]->kind == pkl::Kind::kText) moment.name = names->items[i]->text;
      result_.named = result_.named && !moment.name.empty();
      const std::string what = moment.name.empty() ? key_name(key) : moment.name;
      if (const auto state = by_key_.find(key_name(key)); state != by_key_.end())
        read_moment(*state->second, what, moment);
      result_.moments.push_back(std::move(moment));
    }
  }

  void read_moment(const PickleValue& state, const std::string& what, SecondMoment& moment) {
    const PickleValue* largest = has_items(state) ? item_of(state, "max_exp_avg_sq") : nullptr;
    const PickleValue* value = has_items(state) ? item_of(state, "exp_avg_sq") : nullptr;
    if (largest != nullptr && largest->kind == pkl::Kind::kTensor) value = largest;
    if (value == nullptr || value->kind != pkl::Kind::kTensor)
      throw InputError(file_ + ": the state of parameter " + quote(what) +
                       " has no tensor 'exp_avg_sq': this is no state of Adam; it has " + format_names(keys_of(state)));
    (value == largest ? has_largest_ : has_usual_) = true;
    moment.moment = archive_.place(what + ".exp_avg_sq", *value);
    seen_.insert(what);
    const PickleValue* step = item_of(state, "step");
    moment.step = number_of(step);
    if (step != nullptr && step->kind == pkl::Kind::kTensor) {
      const at::Tensor tensor = archive_.place(what + ".step", *step);
      if (tensor.numel() == 1) moment.step = tensor.to(at::kDouble).item<double>();
    }
    if (!(moment.step >= 1)) moment.step = 0;
  }

  const PickleValue& groups_;
  const PickleValue& states_;
  TensorArchive& archive_;
  const std::string& file_;
  OptimizerState& result_;
  std::map<std::string, const PickleValue*> by_key_;
  std::set<std::string> seen_;
  bool has_largest_ = false, has_usual_ = false;
};

}  // namespace

bool is_torch_archive(const std::filesystem::path& file) {
  std::array<char, 4> start{};
  std::ifstream(file, std::ios::binary).read(start.data(), start.size());
  return std::string_view(start.data(), start.size()) == "PK\x03\x04";
}

OptimizerState read_optimizer_state(const std::filesystem::path& path) {
  check_input_file(path);
  const std::string file = quote(path.string());
  const auto archive = std::make_shared<TensorArchive>(path, file);
  const pickle::Document document = pickle::unpickle(archive->pickle(), file, std::filesystem::file_size(path));
  OptimizerState result;
  result.file = path;
  result.format = "PyTorch optimiser's state dict";
  Reader(find_state(*document.root, file), *archive, file, result).read();
  result.storage = archive;
  return result;
}

}  // namespace hesspect
