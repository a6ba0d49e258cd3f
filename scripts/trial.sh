# Sourced by the scripts that try a broker with programs of other people, from the top of the tree: names the binary
# (OTTLA=PATH, else cargo builds a release), a Python with confluent-kafka and, where `have_java` finds it on the machine,
# Java's libraries. All is kept in clients/ of cargo's target directory; packages come from the ordinary registries.

command -v python3 >/dev/null || { echo "skipped: python3 is not installed"; exit 0; }
target=$(cargo metadata --format-version 1 --no-deps --offline | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
if [ -z "${OTTLA:-}" ]; then
  cargo build --release --locked --quiet
  OTTLA=$target/release/ottla
fi
OTTLA=$(realpath "$OTTLA")
kept=$target/clients/trials
python=$kept/bin/python
if ! "$python" -c 'import confluent_kafka' 2>/dev/null; then
  python3 -m venv "$kept"
  grep '^confluent-kafka==' tests/clients/python/requirements.txt |
    "$python" -m pip install --quiet --disable-pip-version-check -r /dev/stdin
fi
java="java -XX:+UseSerialGC -XX:TieredStopAtLevel=1"

have_java() { local tool; for tool in java javac mvn; do command -v $tool >/dev/null || { why="$tool is not installed"; return 1; }; done; }

# Copies the libraries that POM names into $kept/NAME, once; anew when it changes.
jars() { # NAME POM
  local sum
  sum=$(sha256sum <"$2")
  [ "$(cat "$kept/$1/installed" 2>/dev/null)" = "$sum" ] && return
  rm -rf "${kept:?}/$1"
  # Beside a copy of the file: Maven writes target/ where it finds it.
  mkdir -p "$kept/$1" && cp "$2" "$kept/$1/pom.xml"
  mvn --quiet --batch-mode --file "$kept/$1/pom.xml" dependency:copy-dependencies -DincludeScope=runtime \
    -DoutputDirectory="$kept/$1" >"$kept/mvn.log" 2>&1 ||
    { why="Maven could not fetch the libraries: $(grep . "$kept/mvn.log" | tail -1)"; return 1; }
  echo "$sum" >"$kept/$1/installed"
}
