# Read by CMake inside llama.cpp's project() while pip builds llama-cpp-python (see CMAKE_ARGS in the Makefile).
# llama-common serves llama.cpp's own command-line tools; the Python package never loads it, and it is almost half of
# the build. llama-cpp-python switches it on by force, which only a variable set here can undo.
set(LLAMA_BUILD_COMMON OFF)
