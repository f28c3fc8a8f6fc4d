# Sourced by the prepare.sh of peers and edge: `environment NAME PACKAGE...` makes the virtual environment $work/NAME with these
# packages, unless it is there, finished. Needs $work and $main, the project's own Python.

environment() {
  local folder=$work/$1
  shift
  [ -f "$folder/.installed" ] && return
  "$main" -m venv "$folder"
  "$folder/bin/python" -m pip install --quiet "$@"
  touch "$folder/.installed"
}
