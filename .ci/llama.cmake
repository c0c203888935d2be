# Read by CMake inside llama.cpp's project() while pip builds llama-cpp-python (see CMAKE_ARGS in the Makefile).
# llama-common serves llama.cpp's own command-line tools; the Python package never loads it, and it is almost half of
# the build. llama-cpp-python switches it on by force, which only a variable set here can undo.
set(LLAMA_BUILD_COMMON OFF)

# GCC before 13.3 optimises away most of the AMX tile configuration that ggml makes on the stack, and the first prompt ends
# in a segmentation fault (ggml-org/llama.cpp pull request 26954). Without AMX ggml repacks weights for AVX-512.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64|amd64")
  include(CheckCXXCompilerFlag)
  check_cxx_compiler_flag(-mno-amx-int8 BRIDGE_EDGE_KNOWS_AMX)
  if(BRIDGE_EDGE_KNOWS_AMX)
    add_compile_options(-mno-amx-tile -mno-amx-int8 -mno-amx-bf16)
  endif()
endif()
