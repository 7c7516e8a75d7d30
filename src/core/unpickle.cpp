#include "hesspect/core/unpickle.h"

#include <algorithm>
#include <array>
#include <bit>
#include <initializer_list>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"

// Opcodes: CPython, Lib/pickletools.py.

namespace hesspect::pickle {
namespace {

constexpr std::size_t kMaxValues = 20'000'000;
// Values may take as many times the file in memory, or as many bytes whatever the file.
constexpr std::size_t kTimesTheFile = 10, kAlwaysAllowedBytes = std::size_t{64} << 20;
constexpr std::size_t kMaxRank = 64;
constexpr std::size_t kMaxGlobalName = 1000;

constexpr std::array<std::pair<std::string_view, ElementType>, 12> kStorages{{
    {"torch.FloatStorage", ElementType::kF32},
    {"torch.DoubleStorage", ElementType::kF64},
    {"torch.HalfStorage", ElementType::kF16},
    {"torch.BFloat16Storage", ElementType::kBF16},
    {"torch.LongStorage", ElementType::kI64},
    {"torch.IntStorage", ElementType::kI32},
    {"torch.ShortStorage", ElementType::kI16},
    {"torch.CharStorage", ElementType::kI8},
    {"torch.ByteStorage", ElementType::kU8},
    {"torch.BoolStorage", ElementType::kBool},
    {"torch.ComplexFloatStorage", ElementType::kC64},
    {"torch.ComplexDoubleStorage", ElementType::kC128},
}};

// Calls that make something we have no use for. None of them has an effect beyond its value.
constexpr std::array<std::string_view, 14> kOtherCalls{
    "collections.Counter",   "torch.device",     "torch.serialization._get_layout",
    "builtins.set",          "__builtin__.set",  "builtins.frozenset",
    "__builtin__.frozenset", "builtins.complex", "__builtin__.complex",
    "builtins.bytearray",    "_codecs.encode",   "__builtin__.bytearray",
    "builtins.slice",        "builtins.range"};

// Globals that stand for themselves.
constexpr std::array<std::string_view, 24> kConstants{
    "torch.float16",       "torch.bfloat16",      "torch.float32",     "torch.float64", "torch.float",
    "torch.double",        "torch.half",          "torch.int8",        "torch.int16",   "torch.int32",
    "torch.int64",         "torch.uint8",         "torch.uint16",      "torch.uint32",  "torch.uint64",
    "torch.bool",          "torch.complex64",     "torch.complex128",  "torch.strided", "torch.contiguous_format",
    "torch.channels_last", "torch.float8_e4m3fn", "torch.float8_e5m2", "torch.long"};

constexpr std::string_view kOrderedDict = "collections.OrderedDict";
constexpr std::string_view kSize = "torch.Size";
constexpr std::string_view kTensorV1 = "torch._utils._rebuild_tensor";
constexpr std::string_view kTensorV2 = "torch._utils._rebuild_tensor_v2";
constexpr std::string_view kParameter = "torch._utils._rebuild_parameter";
constexpr std::string_view kParameterWithState = "torch._utils._rebuild_parameter_with_state";
constexpr std::string_view kFromType = "torch._tensor._rebuild_from_type_v2";

// Classes that _rebuild_from_type_v2 may name for a plain tensor that carries attributes.
constexpr std::array<std::string_view, 4> kTensorClasses{"torch.Tensor", "torch._tensor.Tensor",
                                                         "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer"};

// Calls that make an object of the class that is their first argument: messages name that class.
constexpr std::array<std::string_view, 4> kMakers{"copyreg._reconstructor", "copy_reg._reconstructor",
                                                  "copyreg.__newobj__", "copyreg.__newobj_ex__"};

template <class List>
bool contains(const List& list, std::string_view name) {
  return std::find(list.begin(), list.end(), name) != list.end();
}

std::optional<ElementType> storage_type(std::string_view name) {
  for (const auto& [known, type] : kStorages)
    if (known == name) return type;
  return std::nullopt;
}

class Machine {
 public:
  Machine(std::span<const std::byte> bytes, const std::string& file, std::size_t archive_bytes)
      : bytes_(bytes),
        file_(file),
        most_values_(
            std::min(kMaxValues,
                     (kAlwaysAllowedBytes + kTimesTheFile * std::max(bytes.size(), archive_bytes)) / sizeof(Value))) {}

  Document run() {
    while (!done_) step();
    if (stack_.size() != 1 || !marks_.empty()) broken("it ends with values left over");
    document_.root = stack_.front();
    return std::move(document_);
  }

 private:
  [[noreturn]] void broken(const std::string& why) const {
    throw InputError(file_ + ": its pickle is broken at byte " + std::to_string(opcode_at_) + ": " + why);
  }

  // Reading.

  std::span<const std::byte> take(std::uint64_t count) {
    if (count > bytes_.size() - at_)
      broken("it needs " + std::to_string(count) + " more bytes, but only " + std::to_string(bytes_.size() - at_) +
             " are left (truncated?)");
    const auto taken = bytes_.subspan(at_, static_cast<std::size_t>(count));
    at_ += static_cast<std::size_t>(count);
    return taken;
  }
  std::uint64_t take_number(std::size_t width) {
    std::uint64_t value = 0;
    const auto from = take(width);
    for (std::size_t i = 0; i < width; ++i) value |= std::to_integer<std::uint64_t>(from[i]) << (8 * i);
    return value;
  }
  std::string take_text(std::uint64_t count) {
    const auto from = take(count);
    return {reinterpret_cast<const char*>(from.data()), from.size()};
  }
  std::string take_line() {
    std::string line;
    for (;;) {
      const auto c = static_cast<char>(take(1)[0]);
      if (c == '\n') return line;
      if (line.size() == kMaxGlobalName) broken("a global's name is too long");
      line += c;
    }
  }

  // Values and the stack.

  Value& make(Kind kind) {
    if (document_.values.size() >= most_values_) broken("it makes more values than any state dict needs");
    Value& value = document_.values.emplace_back();
    value.kind = kind;
    return value;
  }
  Value& push(Kind kind) {
    Value& value = make(kind);
    stack_.push_back(&value);
    return value;
  }
  /// A placeholder for what an unknown global makes of these.
  void push_object(const std::string& name, std::initializer_list<const Value*> parts) {
    Value& object = push(Kind::kObject);
    object.text = name;
    note_tensors(object, parts);
  }
  template <class Parts>
  static void note_tensors(Value& whole, const Parts& parts) {
    for (const Value* part : parts) whole.holds_tensor |= part->holds_tensor;
  }
  static void put(Value& container, const std::vector<Value*>& items) {
    note_tensors(container, items);
    container.items.insert(container.items.end(), items.begin(), items.end());
  }
  void push_int(std::int64_t number) { push(Kind::kInt).number = number; }
  void push_text(Kind kind, std::uint64_t length) { push(kind).text = take_text(length); }

  /// Values above the last mark, or above the bottom: what may be popped.
  std::size_t available() const { return stack_.size() - (marks_.empty() ? 0 : marks_.back()); }
  Value& top() {
    if (available() == 0) broken("its stack is empty");
    return *stack_.back();
  }
  Value* pop() {
    Value* value = &top();
    stack_.pop_back();
    return value;
  }
  /// The uppermost values, the lowest of them first.
  std::vector<Value*> pop_many(std::size_t count) {
    if (available() < count) broken("its stack is empty");
    std::vector<Value*> values(stack_.end() - static_cast<std::ptrdiff_t>(count), stack_.end());
    stack_.resize(stack_.size() - count);
    return values;
  }
  std::vector<Value*> pop_to_mark() {
    if (marks_.empty()) broken("it has no mark on its stack");
    std::vector<Value*> values = pop_many(available());
    marks_.pop_back();
    return values;
  }
  void check_items(Kind kind, const std::vector<Value*>& items) const {
    if (kind == Kind::kDict && items.size() % 2 != 0) broken("a dict has a key without a value");
  }
  void push_items(Kind kind, const std::vector<Value*>& items) {
    check_items(kind, items);
    put(push(kind), items);
  }

  void extend(Kind kind, const std::vector<Value*>& items) {
    Value& container = top();
    if (container.kind == Kind::kOther) return;  // a set or Counter: of no use here
    if (container.kind == Kind::kObject && kind == Kind::kList) return note_tensors(container, items);
    if (container.kind != kind && container.kind != Kind::kObject)
      broken(kind == Kind::kDict ? "it sets items of no dict" : "it appends to no list");
    check_items(kind, items);
    put(container, items);
  }

  void memoize(std::uint64_t key) { memo_[key] = &top(); }
  void recall(std::uint64_t key) {
    const auto found = memo_.find(key);
    if (found == memo_.end()) broken("it recalls a value that it never stored");
    stack_.push_back(found->second);
  }

  // What would be calls.

  void push_global(const std::string& module, const std::string& name) {
    const std::string full = module + "." + name;
    push(contains(kConstants, full) ? Kind::kOther : Kind::kGlobal).text = full;
  }

  void call() {
    const Value* arguments = pop();
    const Value* function = pop();
    if (arguments->kind != Kind::kTuple) broken("it calls with what is no tuple");
    if (function->kind == Kind::kObject) return push_object(function->text, {function, arguments});
    if (function->kind != Kind::kGlobal) broken("it calls what is no function");
    apply(function->text, *arguments);
  }

  /// NEWOBJ_EX: as call, with arguments by name.
  void call_with_names() {
    const Value* names = pop();
    const Value* arguments = pop();
    const Value* function = pop();
    if (function->kind != Kind::kGlobal && function->kind != Kind::kObject) broken("it calls what is no function");
    push_object(function->text, {function, arguments, names});
  }

  void apply(const std::string& name, const Value& arguments) {
    const auto& items = arguments.items;
    if (contains(kOtherCalls, name)) {
      push(Kind::kOther);
    } else if (name == kOrderedDict) {
      build_ordered_dict(items);
    } else if (name == kSize) {
      if (items.size() != 1 || items[0]->kind != Kind::kTuple) broken("a torch.Size is made of no tuple");
      stack_.push_back(items[0]);
    } else if (name == kTensorV1 || name == kTensorV2) {
      build_tensor(items);
    } else if (name == kParameter || name == kParameterWithState) {
      if (items.empty() || (items[0]->kind != Kind::kTensor && items[0]->kind != Kind::kObject))
        broken("a parameter is made of no tensor");
      stack_.push_back(items[0]);
    } else if (name == kFromType) {
      build_from_type(items);
    } else {
      const bool told_by_class = contains(kMakers, name) && !items.empty() && items[0]->kind == Kind::kGlobal;
      push_object(told_by_class ? items[0]->text : name, {&arguments});
    }
  }

  /// Empty, or of one list of pairs, as Python 2 wrote it.
  void build_ordered_dict(const std::vector<Value*>& items) {
    const auto refuse = [&] { broken("an OrderedDict is made of what is no list of pairs"); };
    if (items.size() > 1 || (items.size() == 1 && items[0]->kind != Kind::kList)) refuse();
    std::vector<Value*> keys_and_values;
    for (const Value* pair : items.empty() ? items : items[0]->items) {
      if ((pair->kind != Kind::kList && pair->kind != Kind::kTuple) || pair->items.size() != 2) refuse();
      keys_and_values.insert(keys_and_values.end(), pair->items.begin(), pair->items.end());
    }
    push_items(Kind::kDict, keys_and_values);
  }

  /// (function, class, its arguments, state): torch/_tensor.py, _rebuild_from_type_v2. A subclass of torch.Tensor that
  /// is not known here may mean its values in any way.
  void build_from_type(const std::vector<Value*>& items) {
    if (items.size() < 3 || items[0]->kind != Kind::kGlobal || items[1]->kind != Kind::kGlobal ||
        items[2]->kind != Kind::kTuple)
      broken("a tensor with attributes is made of other arguments than a function, a class and a tuple");
    if (contains(kTensorClasses, items[1]->text) && items[0]->text == kTensorV2) {
      build_tensor(items[2]->items);
    } else {
      push_object(contains(kTensorClasses, items[1]->text) ? items[0]->text : items[1]->text, {items[2]});
    }
  }

  std::vector<std::int64_t> whole_numbers(const Value& value, const char* what) const {
    if (value.kind != Kind::kTuple && value.kind != Kind::kList)
      broken(std::string("a tensor's ") + what + " is no tuple");
    // The bound also keeps one long tuple, recalled again and again, from being copied each time.
    if (value.items.size() > kMaxRank) broken("a tensor has " + std::to_string(value.items.size()) + " dimensions");
    std::vector<std::int64_t> numbers;
    for (const Value* item : value.items) {
      if (item->kind != Kind::kInt || item->number < 0) broken(std::string("a tensor's ") + what + " is not whole");
      numbers.push_back(item->number);
    }
    return numbers;
  }

  /// (storage, offset, size, stride, …): torch/_utils.py, _rebuild_tensor_v2.
  void build_tensor(const std::vector<Value*>& items) {
    if (items.size() < 4) broken("a tensor is made of too few arguments");
    if (items[0]->kind == Kind::kObject) return push_object(items[0]->text, {items[0]});
    if (items[0]->kind != Kind::kStorage) broken("a tensor is made of no storage");
    if (items[1]->kind != Kind::kInt || items[1]->number < 0) broken("a tensor's offset is not whole");
    auto sizes = whole_numbers(*items[2], "size");
    auto strides = whole_numbers(*items[3], "stride");
    if (sizes.size() != strides.size()) broken("a tensor's size and stride are of different length");
    Value& tensor = push(Kind::kTensor);
    tensor.holds_tensor = true;
    tensor.type = items[0]->type;
    tensor.number = items[1]->number;
    tensor.items = {items[0]};
    tensor.sizes = std::move(sizes);
    tensor.strides = std::move(strides);
  }

  /// ('storage', type, key, location, element count): torch/serialization.py, persistent_id.
  void build_storage() {
    const Value* id = pop();
    const auto& items = id->items;
    if (id->kind != Kind::kTuple || items.size() < 5 || items[0]->kind != Kind::kText || items[0]->text != "storage" ||
        items[1]->kind != Kind::kGlobal || items[2]->kind != Kind::kText || items[4]->kind != Kind::kInt ||
        items[4]->number < 0) {
      broken("a persistent id is not that of a tensor's storage");
    }
    const auto type = storage_type(items[1]->text);
    if (!type && !items[1]->text.ends_with("Storage")) broken(quote(items[1]->text) + " is no storage");
    Value& storage = push(type ? Kind::kStorage : Kind::kObject);
    storage.holds_tensor = true;
    storage.text = items[type ? 2 : 1]->text;
    if (!type) return;  // of a type that is not read here: 8-bit floating point, quantized
    storage.type = *type;
    storage.number = items[4]->number;
  }

  /// Object state: of state dicts (`_metadata`) and tensors with attributes it is of no use here; objects keep it.
  void take_state() {
    const Value* state = pop();
    Value& object = top();
    if (object.kind == Kind::kObject) {
      object.holds_tensor |= state->holds_tensor;
      object.state = state;
    } else if (object.kind != Kind::kDict && object.kind != Kind::kOther && object.kind != Kind::kTensor) {
      broken("it sets the state of a plain value");
    }
  }

  /// Two's complement, little-endian, any length.
  void push_long(std::uint64_t length) {
    const auto digits = take(length);
    if (length > 8) {
      push(Kind::kOther);
      return;
    }
    std::uint64_t value = length > 0 && (digits.back() & std::byte{0x80}) != std::byte{0} ? ~std::uint64_t{0} : 0;
    for (std::size_t i = digits.size(); i-- > 0;) value = value << 8 | std::to_integer<std::uint64_t>(digits[i]);
    push_int(std::bit_cast<std::int64_t>(value));
  }

  void push_float() {
    std::uint64_t bits = 0;
    for (const std::byte b : take(8)) bits = bits << 8 | std::to_integer<std::uint64_t>(b);  // big-endian, for once
    push(Kind::kFloat).real = std::bit_cast<double>(bits);
  }

  void push_stack_global() {
    const Value* name = pop();
    const Value* module = pop();
    if (name->kind != Kind::kText || module->kind != Kind::kText) broken("a global's name is no text");
    push_global(module->text, name->text);
  }

  void step();

  std::span<const std::byte> bytes_;
  std::string file_;
  std::size_t most_values_;
  std::size_t at_ = 0;
  std::size_t opcode_at_ = 0;
  bool done_ = false;
  Document document_;
  std::vector<Value*> stack_;
  std::vector<std::size_t> marks_;  // stack heights
  std::unordered_map<std::uint64_t, Value*> memo_;
};

void Machine::step() {
  opcode_at_ = at_;
  const auto opcode = static_cast<unsigned char>(take(1)[0]);
  if (opcode_at_ == 0 && opcode != 0x80) broken("it does not start with a protocol number");
  switch (opcode) {
    case 0x80: {  // PROTO
      const std::uint64_t protocol = take_number(1);
      if (protocol < 2 || protocol > 5) broken("protocol " + std::to_string(protocol) + " is not one of 2 to 5");
      break;
    }
    case 0x95: take(8); break;  // FRAME: a hint for buffering
    case '.': done_ = true; break;
    case '(': marks_.push_back(stack_.size()); break;
    case '0':  // POP: the mark, if nothing is above it
      if (available() == 0 && !marks_.empty()) {
        marks_.pop_back();
      } else {
        pop();
      }
      break;
    case '1': pop_to_mark(); break;
    case '2': stack_.push_back(&top()); break;
    // Constants and numbers.
    case 'N': push(Kind::kNone); break;
    case 0x88: push(Kind::kBool).number = 1; break;
    case 0x89: push(Kind::kBool).number = 0; break;
    case 'J': push_int(static_cast<std::int32_t>(take_number(4))); break;
    case 'K': push_int(static_cast<std::int64_t>(take_number(1))); break;
    case 'M': push_int(static_cast<std::int64_t>(take_number(2))); break;
    case 0x8a: push_long(take_number(1)); break;
    case 0x8b: push_long(take_number(4)); break;
    case 'G': push_float(); break;
    // Text and bytes.
    case 'X': push_text(Kind::kText, take_number(4)); break;
    case 0x8c: push_text(Kind::kText, take_number(1)); break;
    case 0x8d: push_text(Kind::kText, take_number(8)); break;
    case 'T': push_text(Kind::kText, take_number(4)); break;
    case 'U': push_text(Kind::kText, take_number(1)); break;
    case 'B': push_text(Kind::kBytes, take_number(4)); break;
    case 'C': push_text(Kind::kBytes, take_number(1)); break;
    case 0x8e: push_text(Kind::kBytes, take_number(8)); break;
    case 0x96: push_text(Kind::kBytes, take_number(8)); break;
    // Containers.
    case ']': push(Kind::kList); break;
    case 'l': push_items(Kind::kList, pop_to_mark()); break;
    case 'a': extend(Kind::kList, pop_many(1)); break;
    case 'e': extend(Kind::kList, pop_to_mark()); break;
    case ')': push(Kind::kTuple); break;
    case 't': push_items(Kind::kTuple, pop_to_mark()); break;
    case 0x85: push_items(Kind::kTuple, pop_many(1)); break;
    case 0x86: push_items(Kind::kTuple, pop_many(2)); break;
    case 0x87: push_items(Kind::kTuple, pop_many(3)); break;
    case '}': push(Kind::kDict); break;
    case 'd': push_items(Kind::kDict, pop_to_mark()); break;
    case 's': extend(Kind::kDict, pop_many(2)); break;
    case 'u': extend(Kind::kDict, pop_to_mark()); break;
    case 0x8f: push(Kind::kOther); break;  // EMPTY_SET
    case 0x90: pop_to_mark(); break;       // ADDITEMS
    case 0x91:                             // FROZENSET
      pop_to_mark();
      push(Kind::kOther);
      break;
    // The memo.
    case 'q': memoize(take_number(1)); break;
    case 'r': memoize(take_number(4)); break;
    case 0x94: memoize(memo_.size()); break;
    case 'h': recall(take_number(1)); break;
    case 'j': recall(take_number(4)); break;
    // Globals, calls, storages.
    case 'c': {
      const std::string module = take_line();
      push_global(module, take_line());
      break;
    }
    case 0x93: push_stack_global(); break;
    case 'R': call(); break;
    case 0x81: call(); break;  // NEWOBJ: class and arguments
    case 0x92: call_with_names(); break;
    case 'b': take_state(); break;
    case 'Q': build_storage(); break;
    default: broken("opcode " + std::to_string(opcode) + " is not one that state dicts need");
  }
}

}  // namespace

Document unpickle(std::span<const std::byte> bytes, const std::string& file, std::size_t archive_bytes) {
  return Machine(bytes, file, archive_bytes).run();
}

}  // namespace hesspect::pickle
