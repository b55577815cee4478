# onnxprune as a command: docker build -t onnxprune . && docker run --rm -v "$PWD:/work" -u "$(id -u):$(id -g)" onnxprune --help
# Extras: docker build --build-arg EXTRAS=report,images -t onnxprune .
ARG PYTHON=3.12

# The first stage has what builds: pip's own downloads, and the compiler of the sparse kernels.
FROM python:${PYTHON}-slim AS build
ARG EXTRAS=""
ENV VENV=/opt/onnxprune PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY pyproject.toml setup.py README.md LICENSE constraints.txt ./
COPY onnxprune onnxprune
COPY passes passes
RUN python -m venv "$VENV"
RUN "$VENV/bin/pip" install --constraint constraints.txt ".${EXTRAS:+[$EXTRAS]}"

FROM python:${PYTHON}-slim
ENV VENV=/opt/onnxprune
# Caches of a user without a home go to /tmp.
ENV PATH=$VENV/bin:$PATH HOME=/tmp
COPY --from=build $VENV $VENV
WORKDIR /work
USER 1000:1000
ENTRYPOINT ["onnxprune"]
CMD ["--help"]
