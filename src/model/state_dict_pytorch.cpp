#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <set>

#include "hesspect/core/element_type_torch.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"
#include "state_dict_formats.h"
#include "torch_archive.h"

namespace hesspect {
namespace {

using pickle::Kind;
using pickle::Value;

// Where training scripts put the state dict among other things; at most so many levels down.
constexpr std::array<std::string_view, 9> kStateDictKeys{"state_dict", "model_state_dict", "model",  "module", "net",
                                                         "network",    "weights",          "params", "app"};
constexpr int kMaxLevels = 2;

bool holds_tensors(const Value& value) {
  if (!has_items(value)) return false;
  for (std::size_t i = 1; i < value.items.size(); i += 2) {
    if (value.items[i]->kind == Kind::kTensor) return true;
  }
  return false;
}

/// Whether a state dict lies here or under the known keys; bounded in depth, for dicts may hold themselves.
bool leads_to_tensors(const Value& value, int levels) {
  if (holds_tensors(value)) return true;
  if (!has_items(value) || levels == 0) return false;
  return std::any_of(kStateDictKeys.begin(), kStateDictKeys.end(), [&](std::string_view key) {
    const Value* inner = item_of(value, key);
    return inner != nullptr && leads_to_tensors(*inner, levels - 1);
  });
}

/// Finds the state dict among what else the file holds, and keeps account of the way there.
class Search {
 public:
  Search(const Value& root, const std::string& file, StateDict& state_dict)
      : file_(file), state_dict_(state_dict), dict_(&root) {}

  /// Goes down the keys of `path`, which dots divide; a key may hold dots itself.
  void follow(const std::string& path) {
    std::string rest = path;
    while (!rest.empty()) {
      std::size_t end = rest.size();
      const Value* inner = nullptr;
      while (has_items(*dict_) && (inner = item_of(*dict_, rest.substr(0, end))) == nullptr && end > 0) {
        end = rest.rfind('.', end - 1);
        if (end == std::string::npos) break;
      }
      if (inner == nullptr) {
        const std::vector<std::string> keys = keys_of(*dict_);
        throw InputError(file_ + " holds nothing under --weights-key " + quote(path) + did_you_mean(rest, keys) +
                         (keys.empty() ? "" : "; there are " + format_names(keys)));
      }
      go_down(rest.substr(0, end), *inner);
      rest = end < rest.size() ? rest.substr(end + 1) : "";
    }
  }

  const Value& find() {
    for (int level = 0; level < kMaxLevels && has_items(*dict_); ++level) {
      const Value* inner = nullptr;
      std::string inner_key;
      for (const std::string_view key : kStateDictKeys) {
        const Value* candidate = item_of(*dict_, key);
        if (candidate == nullptr || candidate == inner || !leads_to_tensors(*candidate, kMaxLevels - 1 - level))
          continue;
        if (inner != nullptr)
          throw InputError(file_ + " holds tensors under both " + quote(inner_key) + " and " + quote(key) +
                           "; choose one by --weights-key");
        inner = candidate;
        inner_key = key;
      }
      if (inner == nullptr) break;
      go_down(inner_key, *inner);
    }
    if (!holds_tensors(*dict_)) refuse();
    return *dict_;
  }

 private:
  void go_down(const std::string& key, const Value& inner) {
    const std::string way = state_dict_.key.empty() ? "" : state_dict_.key + ".";
    for (std::size_t i = 0; i < dict_->items.size(); i += 2) {
      const std::string name = key_name(*dict_->items[i]);
      if (name == key) continue;
      state_dict_.skipped.push_back(way + name);
      if (leads_to_tensors(*dict_->items[i + 1], kMaxLevels)) state_dict_.other_sets.push_back(way + name);
    }
    state_dict_.key = way + key;
    dict_ = &inner;
  }

  [[noreturn]] void refuse() const {
    const std::string where = state_dict_.key.empty() ? "" : " under " + quote(state_dict_.key);
    if (dict_->kind == Kind::kObject && dict_->items.empty())
      throw InputError(file_ + " holds no state dict" + where + ", but an object of " + quote(dict_->text) +
                       ", which hesspect does not make (nothing in the file was executed); save "
                       "torch.save(model.state_dict(), FILE)");
    if (!has_items(*dict_)) throw InputError(file_ + " holds no state dict" + where + ", but another kind of value");
    std::vector<std::string> sets;
    std::string made_by;
    for (std::size_t i = 0; i < dict_->items.size(); i += 2) {
      const Value& value = *dict_->items[i + 1];
      if (leads_to_tensors(value, kMaxLevels)) sets.push_back(key_name(*dict_->items[i]));
      if (value.kind == Kind::kObject && made_by.empty())
        made_by = "; " + quote(key_name(*dict_->items[i])) + " is an object of " + quote(value.text) +
                  ", which hesspect does not make (nothing in the file was executed)";
    }
    const std::vector<std::string> keys = keys_of(*dict_);
    throw InputError(
        file_ + " holds no state dict" + where + ": " +
        (keys.empty() ? "its dict is empty" : "there are no tensors by name among its keys " + format_names(keys)) +
        (sets.empty() ? made_by : "; choose by --weights-key of " + format_names(sets)));
  }

  const std::string& file_;
  StateDict& state_dict_;
  const Value* dict_;
};

}  // namespace

const Value& find_state_dict(const Value& root, const std::string& file, const std::string& key,
                             StateDict& state_dict) {
  Search search(root, file, state_dict);
  search.follow(key);
  return search.find();
}

StateDict read_pytorch_state_dict(const std::filesystem::path& path, const std::string& key) {
  const std::string file = quote(path.string());
  const auto archive = std::make_shared<TensorArchive>(path, file);
  const pickle::Document document = pickle::unpickle(archive->pickle(), file, std::filesystem::file_size(path));

  StateDict state_dict;
  state_dict.format = "PyTorch state dict";
  state_dict.files = {path};
  const Value& dict = find_state_dict(*document.root, file, key, state_dict);
  std::set<std::string> seen;
  for (std::size_t i = 0; i < dict.items.size(); i += 2) {
    const Value& item_key = *dict.items[i];
    const Value& value = *dict.items[i + 1];
    const std::string name = key_name(item_key);
    // Modules keep what they like under this name; it is no weight.
    const bool extra_state = name.ends_with("_extra_state");
    if (value.kind == Kind::kObject && value.holds_tensor && !extra_state)
      throw InputError(file + ": tensor " + quote(name) + " is made by " + quote(value.text) +
                       ", which hesspect does not know (nothing in the file was executed); save it as a plain tensor");
    if (value.kind != Kind::kTensor || item_key.kind != Kind::kText) {
      if (value.kind == Kind::kObject) state_dict.objects.emplace_back(name, value.text);
      state_dict.skipped.push_back(state_dict.key.empty() ? name : state_dict.key + "." + name);
      continue;
    }
    if (!seen.insert(name).second) throw InputError(file + ": its state dict holds " + quote(name) + " twice");
    state_dict.tensors.push_back({name, to_scalar_type(value.type), value.sizes, archive->place(name, value)});
  }
  state_dict.storage = archive;
  return state_dict;
}

}  // namespace hesspect
