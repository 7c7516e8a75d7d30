// Changes of a JSON text that leave it JSON, for readers whose faults lie behind the parser: values replaced by
// extremes or by others of the same text, moved, doubled, removed, nested.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace hesspect::fuzz {

/// A changed text of at most `max_size` bytes; nothing but a change of bytes where `text` is not JSON.
std::string mutate_json(const std::string& text, std::size_t max_size, unsigned seed);

/// What LLVMFuzzerCustomMutator must do for an input that is one JSON text.
std::size_t mutate_json_input(std::uint8_t* data, std::size_t size, std::size_t max_size, unsigned seed);

/// libFuzzer's own change of a few bytes.
std::string mutate_bytes(std::string bytes, std::size_t max_size);

}  // namespace hesspect::fuzz
