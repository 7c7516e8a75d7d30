// A reader of the pickles that torch.save writes for state dicts. It builds plain values and executes nothing.
//
// A pickle is a program for a small stack machine that may call any Python function. Here the machine knows only the
// globals that state dicts need (a fixed list in unpickle.cpp) and "calls" them by building a value of our own. What
// any other global makes (a training script's arguments, NumPy scalars, an optimizer) becomes an inert placeholder that
// knows the global's name, keeps the items it is given as a dict, and whether a tensor went into it. Protocols 2 to 5.
// Limits: no recursion, a bound on the number of values, and every length is checked against the bytes that are left.
// Free of LibTorch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <vector>

#include "hesspect/core/element_type.h"

namespace hesspect::pickle {

enum class Kind {
  kNone,
  kBool,
  kInt,
  kFloat,
  kText,
  kBytes,
  kTuple,
  kList,
  kDict,
  kStorage,  // of a tensor: `type`, `text` is the record's key, `number` the element count
  kTensor,   // items[0] is the storage; offset, sizes, strides in elements
  kGlobal,   // a function or class, by `text`; never looked up
  kObject,   // what an unknown global would make, by its name `text`; items as of a dict, where it is given any
  kOther,    // known, but of no use here: a set, a dtype, a device, a big integer…
};

/// One value. Values refer to each other by plain pointers into the Document that owns them all; cycles are possible.
struct Value {
  Kind kind = Kind::kNone;
  bool holds_tensor = false;  // it is a tensor or storage, or such went into it
  ElementType type = ElementType::kF32;
  std::int64_t number = 0;  // of kBool, kInt; the offset of a kTensor
  double real = 0;
  std::string text;
  std::vector<Value*> items;     // dict: key, value, key, value…
  const Value* state = nullptr;  // of a kObject: what it would be restored from (BUILD); nullptr: none
  std::vector<std::int64_t> sizes;
  std::vector<std::int64_t> strides;
};

struct Document {
  std::deque<Value> values;
  const Value* root = nullptr;
};

/// @param bytes  the whole pickle
/// @param file   the quoted file name, for messages
/// @param archive_bytes  size of the file that the pickle lies in: values may take ten times that, or ten times the
///                       pickle
/// @throws InputError: cut short, broken, too large, an opcode that state dicts don't need
Document unpickle(std::span<const std::byte> bytes, const std::string& file, std::size_t archive_bytes = 0);

}  // namespace hesspect::pickle
